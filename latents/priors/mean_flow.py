"""MeanFlow: Geng, Deng, Bai, Kolter, He 2025, arXiv:2505.13447."""

from collections.abc import Callable

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np

from latents.diffusion.paths import spread
from latents.diffusion.samplers import Euler, Sampler
from latents.diffusion.times import LogitNormal, Steps, Uniform
from latents.diffusion.times import shift as shift_time
from latents.errors import UserError
from latents.priors.base import check_guidance, without
from latents.priors.few_step import FewStep
from latents.types import Array, Cond, Latent, Terms, aside


def identity(u: Callable[[Array, Array, Array], Array], x: Array, r: Array, t: Array, v: Array) -> tuple[Array, Array]:
  """u(x, r, t), and what the MeanFlow identity (equation 6) says that it is: v - (t - r) d/dt u.

  d/dt u along the flow is the product of u's Jacobian with the tangent (v, 0, 1) (equation 8). x, v [B,...]; r, t [B].
  """
  value, slope = jax.jvp(u, (x, r, t), (v, jnp.zeros_like(r), jnp.ones_like(t)))
  return value, v - spread(t - r, x) * slope


class MeanFlow(FewStep, kw_only=True):
  """A `FlowPrior` whose backbone gives the average velocity u(x, r, t) from t down to r: x_r = x_t - (t - r) u.

  It sees the times [B,2] of rate (t, t - r). {"mean_flow"}: |u - sg target|^2, the target of `identity` at the velocity
  v of a random pair; its value is the mean over elements, its gradient that of the mean over examples of w S, with S
  the sum over an example's elements and w = sg 1 / (S + floor)^power (equation 22 and section 4.3).

  times: of t and r, the larger of two draws and the smaller. rate: backbones embed 1000 t with frequencies up to 1, and
  the derivative of that by t is noise; 1e-3, with which they embed t itself, is the paper's. equal: share of a batch
  with r = t, which is flow matching. omega, kappa: v is replaced by omega v + kappa u(x, t, t | c)
  + (1 - omega - kappa) u(x, t, t), so that u becomes the average velocity of the field with guidance
  omega / (1 - kappa), in one pass a step (equations 19 to 21); guided: times t where it is. Sampling is Euler's, on any
  grid: one step is x - u(x, 0, 1).
  UserError for a network that predicts no velocity, another solver, or guidance of an unconditional one.
  """

  times: LogitNormal | Uniform | Steps = LogitNormal(-0.4, 1.0)
  sampler: Sampler = aside(Euler(1))
  rate: float = 1e-3
  equal: float = 0.75
  omega: float = 1.0
  kappa: float = 0.0
  guided: tuple[float, float] = (0.0, 1.0)
  power: float = 1.0
  floor: float = 1e-3

  @nn.compact
  def loss(self, latent: Latent, cond: Cond | None, *, train: bool) -> Terms:
    """See the class; random times and noise."""
    self._check()
    z = self._continuous(latent)
    batch = len(z)
    eps = jax.random.normal(self.make_rng("prior"), z.shape)
    two = shift_time(self.times(self.make_rng("prior"), 2 * batch), self._shift(z.shape[1:])).reshape(2, batch)
    t = two.max(0)
    r = jnp.where(jnp.arange(batch) < round(self.equal * batch), t, two.min(0))
    cond = self._dropped(cond, train)
    x, v = self.process.path.mix(z, eps, t), self.process.path.velocity(z, eps, t)
    network, params = self._student(x, self._pair(t, r), cond, train)
    u = lambda x, r, t, cond=cond: network(params, x, self._pair(t, r), cond)  # noqa: E731
    if cond is not None and (self.omega != 1.0 or self.kappa):
      of_none = (1 - self.omega - self.kappa) * u(x, t, t, without(cond, batch))
      mixed = self.omega * v + of_none + (self.kappa * u(x, t, t) if self.kappa else 0.0)
      lo, hi = self.guided
      known = (t >= lo) & (t <= hi) & ~cond.get("drop", jnp.zeros(batch, bool))
      v = jnp.where(spread(known, x) > 0, jax.lax.stop_gradient(mixed), v)
    found, target = identity(u, x, r, t, v)
    error = jnp.square(found - jax.lax.stop_gradient(target))
    return {"mean_flow": self._weighed(error, latent.mask)}

  def _weighed(self, error: Array, mask: Array) -> Array:
    """[B,*s,D] -> []: see the class."""
    kept = error if mask is None else error * mask[..., None]
    total = kept.reshape(len(error), -1).sum(1)
    felt = (total * jax.lax.stop_gradient((total + self.floor) ** -self.power)).mean()
    return jax.lax.stop_gradient(self._mean(error.mean(-1), mask) - felt) + felt

  def _seen(self, x: Array, tau: Array, times: np.ndarray) -> tuple[Array, Array]:
    """See `FlowPrior`: from each time of the grid to the next."""
    then = jnp.asarray(times[1:], x.dtype)[jnp.argmin(jnp.abs(jnp.asarray(times[:-1], x.dtype) - tau))]
    return self.process.inputs(x, jnp.broadcast_to(self._pair(tau, then), (len(x), 2)))

  def _pair(self, t: Array, r: Array) -> Array:
    """Two times as the network sees them."""
    return self.rate * jnp.stack([t, t - r], -1)

  def _check(self) -> None:
    check_velocity(self, "MeanFlow")
    if not 0 <= self.kappa < 1:
      raise UserError(f"kappa is {self.kappa}: the guidance omega / (1 - kappa) needs it in [0, 1)")
    check_guidance(self.omega / (1 - self.kappa), self.conditions)


def check_velocity(prior: FewStep, name: str) -> None:
  """UserError where a model of average velocities does not predict them, or is sampled by another step than its own."""
  process = prior.process
  if process.predict != "velocity" or process.compare or process.weight or process.variance != "none":
    raise UserError(f"{name} predicts and compares velocities, unweighted and without a variance")
  if not isinstance(prior.sampler, Euler):
    raise UserError(f"{name} steps by its average velocity: its sampler is Euler, not {type(prior.sampler).__name__}")
