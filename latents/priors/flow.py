"""Flow-matching prior on continuous latents.

Lipman et al. 2023, arXiv:2210.02747; SiT, Ma et al. 2024, arXiv:2401.08740; logit-normal times and the shift of
time from Esser et al. 2024, arXiv:2403.03206; guidance interval from Kynkaanniemi et al. 2024, arXiv:2404.07724;
autoguidance from Karras et al. 2024, arXiv:2406.02507.
"""

import math
from collections.abc import Callable
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np

from latents.diffusion.density import Density
from latents.diffusion.field import Network
from latents.diffusion.grids import Even, Grid, Karras
from latents.diffusion.guidance import inside
from latents.diffusion.paths import Exploding, spread
from latents.diffusion.process import Process
from latents.diffusion.resampled import Resampled
from latents.diffusion.samplers import Euler, Sampler
from latents.diffusion.times import LogitNormal, LogNormal, Times, dimension_shift
from latents.diffusion.times import shift as shift_time
from latents.errors import UserError
from latents.nn.streams import sample_keys
from latents.priors.base import LEVELS, Prior, check_guidance, doubled, drop, rows, without
from latents.types import Array, Cond, Latent, Terms, aside, later


class FlowPrior(Prior):
  """Reads latent.z [B,*s,D]; by default the backbone estimates the velocity eps - z at z_tau = (1 - tau) z + tau eps.

  times: distribution of tau in training. shift: of times in training and sampling (`times.shift`); None =
  max(1, sqrt(numbers in one latent / 4096)), and 1 on `Exploding`, whose times are levels. label_drop: share of labels
  that become null in training. sampler: solver and its steps. guidance: scale, 1 = conditional; interval: times [lo,hi]
  that are guided.
  process: path, and what the backbone predicts on it; with a learned variance it must have out = 2 D. grid: the times
  of sampling. guide: a smaller or less trained `FlowPrior` on the same process, told the same condition, from which
  guidance leads away: guide + scale (own - guide); its weights come from `Start(stage=..., into="guide")`, and it
  stands still: `trained=("backbone",)`. guided_channels: guidance on the first of them alone (DiT's 3), None = all.
  ode: how `nll` is computed, None = it is not.
  """

  backbone: nn.Module
  times: Times = LogitNormal()
  shift: float | None = None
  label_drop: float = 0.1
  sampler: Sampler = aside(Euler(50))
  guidance: float = aside(1.0)
  interval: tuple[float, float] = aside((0.0, 1.0))
  process: Process = later(Process())
  grid: Grid = later(Even(), address=False)
  guide: nn.Module | None = later(None)
  guided_channels: int | None = later(None, address=False)
  ode: Density | None = later(None, address=False)

  @property
  def likelihood(self) -> bool:  # pyright: ignore[reportIncompatibleVariableOverride]
    """Whether `nll` is there: where it is asked for."""
    return self.ode is not None

  def _check_levels(self) -> None:
    """UserError where times or grid count the noise of another path."""
    for part in (self.times, self.grid):
      if isinstance(part, LogNormal | Karras) and self.process.path != Exploding(part.most):
        wanted = f"Exploding({part.most:g})"
        raise UserError(f"{part} are levels of noise on the path {wanted}, but the process has {self.process.path}")

  def _shift(self, shape: tuple[int, ...]) -> float:
    if self.shift is not None:
      return self.shift
    return 1.0 if isinstance(self.process.path, Exploding) else dimension_shift(math.prod(shape))

  @nn.compact
  def loss(self, latent: Latent, cond: Cond | None, *, train: bool) -> Terms:
    """{"flow": mean over batch and elements (mask: over kept tokens) of |v_hat - v|^2}; random times and noise.

    Other errors, and "vlb": as `Process.terms`, each with its weight in it.
    """
    self._check_levels()
    z = self._continuous(latent)
    eps = jax.random.normal(self.make_rng("prior"), z.shape)
    drawn, share, follow = self._draw_times(z.shape[0], train)
    tau = shift_time(drawn, self._shift(z.shape[1:]))
    if train and cond is not None and self.conditions:
      cond = drop(self.make_rng("prior"), cond, self.label_drop)
    noisy = self.process.path.mix(z, eps, tau)
    out = self.backbone(*self.process.inputs(noisy, tau), cond, train=train)
    if self.guide is not None and self.is_initializing():
      guide: Any = self.guide
      guide.backbone(*self.process.inputs(noisy, tau), cond if guide.conditions else None, train=False)
    if out.shape != (*z.shape[:-1], wanted := self.process.width(z.shape[-1])):
      told = "None" if wanted == z.shape[-1] else wanted
      raise UserError(f"the backbone gives {out.shape} for latents of {z.shape}: set its `out` to {told}")
    terms, total = {}, jnp.zeros(len(z))
    for name, (error, weight) in self._errors(out, z, eps, noisy, tau).items():
      total += weight * error.reshape(len(z), -1).mean(-1)
      value = self._mean(error if share is None else error * spread(share, error), latent.mask)
      terms[name] = value if weight == 1.0 else weight * value
    follow(total)
    return terms

  def _errors(self, out: Array, z: Array, eps: Array, noisy: Array, tau: Array) -> dict[str, tuple[Array, float]]:
    """What the backbone gave at (noisy, tau) -> name -> (error of each token [B,*s], weight of its mean)."""
    found = self.process.terms(out, z, eps, noisy, tau)
    return {name: (error.mean(-1), weight) for name, (error, weight) in found.items()}

  def levels(self, latent: Latent, cond: Cond | None) -> Terms:
    """See `Prior.levels`; one noise for all levels."""
    z, found = self._continuous(latent), {}
    eps = jax.random.normal(self.make_rng("prior"), z.shape)
    for level in LEVELS:
      tau = jnp.full(z.shape[:1], self.process.path.time(np.asarray(float(level))), jnp.float32)
      x = self.process.path.mix(z, eps, tau)
      out = self.backbone(*self.process.inputs(x, tau), cond, train=False)
      error = jnp.square(self.process.data(out, x, tau) - z).mean(-1)
      found[f"data_error_at_{level}"] = self._mean(error, latent.mask)
    return found

  def _draw_times(self, batch: int, train: bool) -> tuple[Array, Array, Callable[[Array], None]]:
    """[batch] times before the shift, weights of their losses (None = 1), and what becomes of the losses."""
    key = self.make_rng("prior")
    if not isinstance(self.times, Resampled):
      return self.times(key, batch), None, lambda each: None
    times, held = self.times, self.variable("losses", "times", self.times.start)
    if not train:
      return times(key, batch), None, lambda each: None
    number, share = times.draw(key, batch, held.value)

    def follow(each: Array) -> None:
      if not self.is_initializing():
        if not self.is_mutable_collection("losses"):
          raise UserError('times by importance follow the losses: name "times" in `trained`')
        held.value = times.follow(held.value, number, each)

    return number / times.count, share, follow

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
    self._check_guidance(scale, shape)
    self._check_levels()
    batch = count if cond is None else rows(cond)
    keys = sample_keys(self.make_rng("prior"), batch)
    noise = jax.vmap(lambda key: jax.random.normal(key, shape))(keys) * self.process.path.scale
    times = self.grid(self.sampler.steps, self._shift(shape))
    field = self.process.field(self._network(cond, times), self._guided(cond, times, batch, scale))
    return Latent(z=self.sampler(field, noise, times, guided=inside(times, self.interval), keys=keys))

  def nll(self, latent: Latent, cond: Cond | None) -> Array:
    """See `Prior.nll`: of z in normalised units, without guidance, by the flow (`Density`). UserError for a mask."""
    if self.ode is None:
      return super().nll(latent, cond)
    if latent.mask is not None:
      raise UserError("a flow has no likelihood of latents of which parts are masked: set the prior's ode to None")
    z = self._continuous(latent)
    times = self.grid(self.ode.steps, self._shift(z.shape[1:]))
    keys = sample_keys(self.make_rng("prior"), z.shape[0])
    return self.ode(self.process.field(self._network(cond, times)), z, times, keys)

  def _network(self, cond: Cond | None, times: np.ndarray) -> Network:
    """The backbone under a condition on a grid of times, as a function that may be scanned."""
    backbone, variables = self.backbone.unbind()
    cond = cond if self.conditions else None

    def network(x: Array, tau: Array) -> Array:
      return backbone.apply(variables, *self._seen(x, tau, times), cond, train=False)  # pyright: ignore

    return network

  def _guided(self, cond: Cond | None, times: np.ndarray, batch: int, scale: float) -> Network:
    """The network with guidance: one pass of both halves, or one of it and one of its guide."""
    if scale == 1.0 or (scale == 0.0 and self.guide is None):
      return self._network(cond if scale else without(cond, batch), times)
    channels, own, guide = self.guided_channels, self._network(cond, times), self.guide
    if guide is not None:
      other: Network = guide._network(cond, times)  # pyright: ignore
      return lambda x, tau: self.process.guide(other(x, tau), own(x, tau), scale, channels)
    both = self._network(doubled(cond, batch), times)

    def guided(x: Array, tau: Array) -> Array:
      u, c = jnp.split(both(jnp.concatenate([x, x]), tau), 2)
      return self.process.guide(u, c, scale, channels)

    return guided

  def _check_guidance(self, scale: float, shape: tuple[int, ...]) -> None:
    """UserError for guidance that cannot be."""
    if self.guide is None:
      check_guidance(scale, self.conditions)
    elif not isinstance(self.guide, FlowPrior) or self.guide.process != self.process:
      raise UserError(f"a guide is a FlowPrior of the same process as its prior's, not {type(self.guide).__name__}")
    if self.guided_channels is not None and not 1 <= self.guided_channels <= shape[-1]:
      raise UserError(f"guided_channels is {self.guided_channels}: the latent has {shape[-1]} channels")
