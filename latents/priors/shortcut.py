"""Shortcut models: Frans, Hafner, Levine, Abbeel 2024, arXiv:2410.12557."""

from collections.abc import Callable

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np

from latents.diffusion.paths import spread
from latents.diffusion.samplers import Euler, Sampler
from latents.diffusion.times import LogitNormal, Steps, Uniform
from latents.errors import UserError
from latents.priors.base import check_guidance, without
from latents.priors.few_step import FewStep
from latents.priors.mean_flow import check_velocity
from latents.types import Array, Cond, Latent, Terms, aside


def composed(s: Callable[[Array, Array, Array], Array], x: Array, tau: Array, d: Array) -> Array:
  """The velocity of a step 2 d that is two steps d: (s(x, tau, d) + s(x', tau - d, d)) / 2, x' = x - d s(x, tau, d).

  Equations 4 and 5, with the second time as it must be. x [B,...]; tau, d [B].
  """
  first = s(x, tau, d)
  return (first + s(x - spread(d, x) * first, tau - d, d)) / 2


class Shortcut(FewStep, kw_only=True):
  """A `FlowPrior` whose backbone gives the velocity s(x, tau, d) of a step of length d: x_(tau-d) = x_tau - d s.

  It sees the times [B,2] of (tau, d); d = 0 is the flow, and stands for the finest step 1 / finest. `share` of a batch
  learns that a step 2 d is two of the averaged network's steps d (`composed`), d = 1/2, .. 1/finest at random, tau at a
  multiple of 2 d; the rest is flow matching. Their errors are {"shortcut", "flow"}, each times its share of the batch:
  the sum is the paper's mean (equation 5).

  times: of the flow matching. decay: of the average, in the collection "target" at "average"; 0 = the network itself.
  target_guidance: scale with which its finest steps are guided there, and so in all that is learned from them. Sampling
  takes n = 1, 2, 4, .. finest even steps with d = 1 / n. UserError for another number, a shift of time, another solver,
  a network that predicts no velocity, guidance of an unconditional one, or an average that is not trained.
  """

  times: LogitNormal | Uniform | Steps = Uniform()
  shift: float | None = 1.0
  sampler: Sampler = aside(Euler(1))
  finest: int = 128
  share: float = 0.25
  decay: float = 0.999
  target_guidance: float = 1.0

  @nn.compact
  def loss(self, latent: Latent, cond: Cond | None, *, train: bool) -> Terms:
    """See the class; random steps, times and noise. A batch of one is flow matching."""
    self._check()
    z = self._continuous(latent)
    batch = len(z)
    some = min(max(round(self.share * batch), 1), batch - 1)  # the first of them are for the steps
    eps = jax.random.normal(self.make_rng("prior"), z.shape)
    tau, d = self._steps(some)
    tau = jnp.concatenate([tau, self.times(self.make_rng("prior"), batch - some)])
    cond = self._dropped(cond, train)
    x = self.process.path.mix(z, eps, tau)
    told = jnp.stack([tau, jnp.concatenate([2 * d, jnp.zeros(batch - some)])], -1)
    network, params = self._student(x, told, cond, train)
    target = self.process.path.velocity(z, eps, tau)
    average = self._average(params, self.decay, train)  # a batch of one makes it too
    if some:
      mine = None if cond is None else {name: value[:some] for name, value in cond.items()}
      aim = composed(self._step(network, average, mine), x[:some], tau[:some], d)
      target = jnp.concatenate([jax.lax.stop_gradient(aim), target[some:]])
    error = jnp.square(network(params, x, told, cond) - target).mean(-1)
    mask, part = latent.mask, some / batch
    terms = {"flow": (1 - part) * self._mean(error[some:], None if mask is None else mask[some:])}
    if some:
      terms["shortcut"] = part * self._mean(error[:some], None if mask is None else mask[:some])
    return terms

  def _steps(self, count: int) -> tuple[Array, Array]:
    """(tau [count], d [count]): 1 / (2 d) is a power of two below `finest`, tau = 2 d, 4 d, .. 1."""
    level = jax.random.randint(self.make_rng("prior"), (count,), 0, self.finest.bit_length() - 1)
    number = 2.0**level
    place = jnp.floor(jax.random.uniform(self.make_rng("prior"), (count,)) * number)
    return (place + 1) / number, 0.5 / number

  def _step(self, network: Callable, params: dict, cond: Cond | None) -> Callable[[Array, Array, Array], Array]:
    """s(x, tau, d) of the network with these parameters, its finest steps guided."""

    def s(x: Array, tau: Array, d: Array) -> Array:
      finest = d <= 1 / self.finest
      told = jnp.stack([tau, jnp.where(finest, 0.0, d)], -1)
      own = network(params, x, told, cond)
      if self.target_guidance == 1.0 or cond is None:
        return own
      guided = self.process.guide(network(params, x, told, without(cond, len(x))), own, self.target_guidance)
      return jnp.where(spread(finest, x) > 0, guided, own)

    return s

  def _seen(self, x: Array, tau: Array, times: np.ndarray) -> tuple[Array, Array]:
    """See `FlowPrior`."""
    steps = len(times) - 1
    d = 0.0 if steps == self.finest else 1.0 / steps
    return self.process.inputs(x, jnp.broadcast_to(jnp.stack([tau, jnp.full_like(tau, d)]), (len(x), 2)))

  def _check(self) -> None:
    check_velocity(self, "a shortcut model")
    if not _power(self.finest) or self.finest < 2:
      raise UserError(f"finest is {self.finest}: the steps of a shortcut model halve, so it is a power of two from 2")
    if not _power(steps := self.sampler.steps) or steps > self.finest:
      raise UserError(f"a shortcut model samples in 1, 2, 4, .. {self.finest} steps, not in {steps}")
    if self.shift != 1.0:
      raise UserError(f"the steps of a shortcut model are even: shift is 1, not {self.shift}")
    check_guidance(self.target_guidance, self.conditions)


def _power(number: int) -> bool:
  return number > 0 and number & (number - 1) == 0
