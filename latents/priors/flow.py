"""Flow-matching prior on continuous latents.

Lipman et al. 2023, arXiv:2210.02747; SiT, Ma et al. 2024, arXiv:2401.08740; logit-normal times and the shift of
time from Esser et al. 2024, arXiv:2403.03206; guidance interval from Kynkaanniemi et al. 2024, arXiv:2404.07724.
"""

import math
from collections.abc import Callable

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np

from latents.diffusion.grids import Even, Strided
from latents.diffusion.guidance import inside
from latents.diffusion.process import Process
from latents.diffusion.samplers import Euler, Sampler
from latents.diffusion.times import LogitNormal, Steps, Uniform, dimension_shift
from latents.diffusion.times import shift as shift_time
from latents.errors import UserError
from latents.priors.base import Prior, check_guidance, doubled, drop, rows, sample_keys, without
from latents.types import Array, Cond, Latent, Terms, aside, later

Denoiser = Callable[[Array, Array, Array | None], Array]


class FlowPrior(Prior):
  """Reads latent.z [B,*s,D]; by default the backbone estimates the velocity eps - z at z_tau = (1 - tau) z + tau eps.

  times: distribution of tau in training. shift: of times in training and sampling (`times.shift`); None =
  max(1, sqrt(numbers in one latent / 4096)). label_drop: share of labels that become null in training.
  sampler: solver and its steps. guidance: scale, 1 = conditional; interval: times [lo,hi] that are guided.
  process: path, and what the backbone predicts on it; with a learned variance it must have out = 2 D. grid: the times
  of sampling.
  """

  backbone: nn.Module
  times: LogitNormal | Uniform | Steps = LogitNormal()
  shift: float | None = None
  label_drop: float = 0.1
  sampler: Sampler = aside(Euler(50))
  guidance: float = aside(1.0)
  interval: tuple[float, float] = aside((0.0, 1.0))
  process: Process = later(Process())
  grid: Even | Strided = later(Even(), address=False)

  def _shift(self, shape: tuple[int, ...]) -> float:
    return dimension_shift(math.prod(shape)) if self.shift is None else self.shift

  def loss(self, latent: Latent, cond: Cond | None, *, train: bool) -> Terms:
    """{"flow": mean over batch and elements (mask: over kept tokens) of |v_hat - v|^2}; random times and noise.

    Other errors, and "vlb": as `Process.terms`, each with its weight in it.
    """
    z = self._continuous(latent)
    eps = jax.random.normal(self.make_rng("prior"), z.shape)
    tau = shift_time(self.times(self.make_rng("prior"), z.shape[0]), self._shift(z.shape[1:]))
    if train and cond is not None and self.conditions:
      cond = drop(self.make_rng("prior"), cond, self.label_drop)
    noisy = self.process.path.mix(z, eps, tau)
    out = self.backbone(*self.process.inputs(noisy, tau), cond, train=train)
    if out.shape != (*z.shape[:-1], wanted := self.process.width(z.shape[-1])):
      told = "None" if wanted == z.shape[-1] else wanted
      raise UserError(f"the backbone gives {out.shape} for latents of {z.shape}: set its `out` to {told}")
    terms = {}
    for name, (error, weight) in self.process.terms(out, z, eps, noisy, tau).items():
      value = self._mean(error.mean(-1), latent.mask)
      terms[name] = value if weight == 1.0 else weight * value
    return terms

  def _continuous(self, latent: Latent) -> Array:
    """z [B,*s,D] float32. UserError for a latent of codes alone."""
    if latent.z is None:
      raise UserError("a flow prior needs a continuous latent, but this bottleneck gives codes only")
    return latent.z.astype(jnp.float32)

  def _mean(self, error: Array, mask: Array) -> Array:
    """[B,*s] -> []: over all tokens, or those that are kept."""
    if mask is None:
      return error.mean()
    return jnp.sum(error * mask) / jnp.maximum(mask.sum(), 1)

  def _seen(self, x: Array, tau: Array, times: np.ndarray) -> tuple[Array, Array]:
    """What the backbone sees of x [B,...] at time tau [] of a sampler's grid `times`."""
    del times
    return self.process.inputs(x, jnp.broadcast_to(tau, x.shape[:1]))

  def sample(
    self, cond: Cond | None, *, shape: tuple[int, ...], guidance: float | None = None, count: int = 1
  ) -> Latent:
    """See `Prior.sample`; z [B,*shape] in normalised units. Guidance 1 evaluates the conditional half alone."""
    scale = self.guidance if guidance is None else guidance
    check_guidance(scale, self.conditions)
    batch = count if cond is None else rows(cond)
    cond = cond if self.conditions else None
    keys = sample_keys(self.make_rng("prior"), batch)
    noise = jax.vmap(lambda key: jax.random.normal(key, shape))(keys) * self.process.path.scale
    null, both = without(cond, batch), doubled(cond, batch)
    times = self.grid(self.sampler.steps, self._shift(shape))
    backbone, variables = self.backbone.unbind()

    def network(x: Array, tau: Array, cond: Cond | None) -> Array:
      return backbone.apply(variables, *self._seen(x, tau, times), cond, train=False)  # pyright: ignore

    def conditional(x: Array, tau: Array) -> Array:
      return network(x, tau, cond)

    def guided(x: Array, tau: Array) -> Array:
      if scale == 1.0 or scale == 0.0:
        return network(x, tau, cond if scale else null)
      u, c = jnp.split(network(jnp.concatenate([x, x]), tau, both), 2)
      return self.process.guide(u, c, scale)

    field = self.process.field(conditional, guided)
    return Latent(z=self.sampler(field, noise, times, guided=inside(times, self.interval), keys=keys))
