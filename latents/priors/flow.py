"""Flow-matching prior on continuous latents.

Lipman et al. 2023, arXiv:2210.02747; SiT, Ma et al. 2024, arXiv:2401.08740; logit-normal times and the shift of
time from Esser et al. 2024, arXiv:2403.03206; guidance interval from Kynkaanniemi et al. 2024, arXiv:2404.07724.
"""

import math
from collections.abc import Callable
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp

from latents.diffusion import paths
from latents.diffusion.guidance import guide, solve
from latents.diffusion.samplers import Euler, Heun, grid
from latents.diffusion.times import LogitNormal, Uniform, dimension_shift
from latents.diffusion.times import shift as shift_time
from latents.errors import UserError
from latents.priors.base import Prior, check_guidance, drop_labels, null_labels, sample_keys
from latents.types import Array, Latent, Terms, aside

Denoiser = Callable[[Array, Array, Array | None], Array]


class FlowPrior(Prior):
  """Reads latent.z [B,*s,D]; the backbone estimates the velocity eps - z at z_tau = (1 - tau) z + tau eps.

  times: distribution of tau in training. shift: of times in training and sampling (`times.shift`); None =
  max(1, sqrt(numbers in one latent / 4096)). label_drop: share of labels that become null in training.
  sampler: solver and its steps. guidance: scale, 1 = conditional; interval: times [lo,hi] that are guided.
  """

  backbone: nn.Module
  times: LogitNormal | Uniform = LogitNormal()
  shift: float | None = None
  label_drop: float = 0.1
  sampler: Euler | Heun = aside(Euler(50))
  guidance: float = aside(1.0)
  interval: tuple[float, float] = aside((0.0, 1.0))

  def _shift(self, shape: tuple[int, ...]) -> float:
    return dimension_shift(math.prod(shape)) if self.shift is None else self.shift

  def loss(self, latent: Latent, cond: Array | None, *, train: bool) -> Terms:
    """{"flow": mean over batch and elements (mask: over kept tokens) of |v_hat - v|^2}; random times and noise."""
    z = latent.z
    if z is None:
      raise UserError("a flow prior needs a continuous latent, but this bottleneck gives codes only")
    z = z.astype(jnp.float32)
    eps = jax.random.normal(self.make_rng("prior"), z.shape)
    tau = shift_time(self.times(self.make_rng("prior"), z.shape[0]), self._shift(z.shape[1:]))
    if train and cond is not None and self.backbone.classes:
      cond = drop_labels(self.make_rng("prior"), cond, self.label_drop, self.backbone.classes)
    v = self.backbone(paths.mix(z, eps, tau), tau, cond, train=train)
    if v.shape != z.shape:
      raise UserError(f"the backbone gives {v.shape} for latents of {z.shape}: set its `out` to None")
    error = jnp.square(v - paths.velocity(z, eps)).mean(-1)
    if latent.mask is None:
      return {"flow": error.mean()}
    return {"flow": jnp.sum(error * latent.mask) / jnp.maximum(latent.mask.sum(), 1)}

  def sample(
    self, cond: Array | None, *, shape: tuple[int, ...], guidance: float | None = None, count: int = 1
  ) -> Latent:
    """See `Prior.sample`; z [B,*shape] in normalised units. Guidance 1 evaluates the conditional half alone."""
    scale, classes = self.guidance if guidance is None else guidance, self.backbone.classes
    check_guidance(scale, classes)
    batch = count if cond is None else cond.shape[0]
    noise = jax.vmap(lambda key: jax.random.normal(key, shape))(sample_keys(self.make_rng("prior"), batch))
    null = null_labels(classes, batch)
    labels = null if cond is None or not classes else cond
    backbone, variables = self.backbone.unbind()

    def network(x: Array, tau: Array, label: Any) -> Array:
      return backbone.apply(variables, x, jnp.broadcast_to(tau, x.shape[:1]), label, train=False)

    def conditional(x: Array, tau: Array) -> Array:
      return network(x, tau, labels)

    def guided(x: Array, tau: Array) -> Array:
      if scale == 1.0 or scale == 0.0:
        return network(x, tau, labels if scale else null)
      both = network(jnp.concatenate([x, x]), tau, jnp.concatenate([null, labels]))
      u, c = jnp.split(both, 2)
      return guide(u, c, scale)

    times = grid(self.sampler.steps, self._shift(shape))
    return Latent(z=solve(self.sampler, conditional, guided, noise, times, self.interval))
