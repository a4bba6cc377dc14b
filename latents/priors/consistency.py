"""Consistency models: Song, Dhariwal, Chen, Sutskever 2023, arXiv:2303.01469, algorithms 2 (distillation) and 3
(training); Song & Dhariwal 2023, arXiv:2310.14189 (iCT)."""

import math
from typing import Any, Literal

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np

from latents.diffusion.paths import spread
from latents.diffusion.samplers import Consistency, Sampler
from latents.errors import UserError
from latents.priors.distance import PseudoHuber, Squared
from latents.priors.few_step import FewStep, Taught
from latents.priors.flow import FlowPrior
from latents.priors.intervals import Doubling, Rising
from latents.types import Array, Cond, Latent, Terms, aside, later


class Consistent(FewStep):
  """A `FlowPrior` whose backbone, the student, gives in one step what a flow ends at; its members say which flow.

  f(x, tau) is the student's estimate of the data, read from what it predicts: f(x, 0) = x for a velocity (c_skip = 1,
  c_out = -tau on the linear path), for noise, and for "edm" (`Process.least`: at that noise). For x at one time, and
  `earlier` on its line of the flow at the time before it: distance(f(x, now), sg f_target(earlier, then)), f_target
  with the average of the student (`FewStep._average`).
  """

  distance = Squared()  # not annotated: a field would come first

  def _compare(
    self, x: Array, earlier: Array, now: Array, then: Array, weights: Array, cond: Cond | None, mask: Array, *,
    decay: Any, train: bool,
  ) -> Array:  # fmt: skip
    """[]: the mean over examples of weights [B] times their distance, by as many tokens as are kept of each."""
    network, params = self._student(x, now, cond, train)
    f = lambda params, x, tau: self.process.data(network(params, x, tau, cond), x, tau)  # noqa: E731
    aim = jax.lax.stop_gradient(f(self._average(params, decay, train), earlier, then))
    error = jnp.square(f(params, x, now) - aim).mean(-1)
    axes = tuple(range(1, error.ndim))
    kept = jnp.ones_like(error) if mask is None else mask
    each = self.distance(jnp.sum(error * kept, axes) / jnp.maximum(jnp.sum(kept, axes), 1))
    return self._mean(jnp.broadcast_to(spread(weights * each, error), error.shape), mask)

  def _times(self, intervals: int, shape: tuple[int, ...]) -> np.ndarray:
    """[intervals + 1] from 0 to 1: the grid of sampling."""
    return self.grid(intervals, self._shift(shape))[::-1]

  def _check(self) -> None:
    if self.process.predict == "data" or self.process.variance != "none":
      raise UserError("a consistency model predicts velocity or noise, or edm, without a variance: then f(x, 0) = x")


class ConsistencyDistillation(Consistent, Taught, kw_only=True):
  """One that follows its teacher's flow. With x at time n of a grid and x_hat one step of the teacher's flow earlier in
  it (the step that is exact for its estimate: DDIM's, Euler's on the linear path):
    {"consistency"}: mean |f(x, tau_n) - sg f_target(x_hat, tau_(n-1))|^2.

  teacher: untrained, its weights from `Start(stage=..., into="teacher")`; the student may begin with them too:
  `Start(stage=..., source="backbone", into="backbone")`; `trained=("backbone", "average")`. intervals: of the grid,
  shifted as sampling is. decay: of the average; 0 = the student itself, and no "average". teacher_guidance: scale with
  which the teacher steps, so that the student needs none. UserError where student and teacher have not one path, where
  f(x, 0) = x does not hold, or where the average is not trained.
  """

  teacher: FlowPrior
  intervals: int = 40
  decay: float = 0.95
  teacher_guidance: float = 1.0
  label_drop: float = 0.0
  sampler: Sampler = aside(Consistency(2))
  distance: Squared | PseudoHuber = later(Squared())

  @nn.compact
  def loss(self, latent: Latent, cond: Cond | None, *, train: bool) -> Terms:
    """See the class; random intervals and noise."""
    self._check()
    self._check_teacher()
    z = self._continuous(latent)
    eps = jax.random.normal(self.make_rng("prior"), z.shape)
    number = jax.random.randint(self.make_rng("prior"), z.shape[:1], 1, self.intervals + 1)
    times = jnp.asarray(self._times(self.intervals, z.shape[1:]), jnp.float32)
    now, then = times[number], times[number - 1]
    cond = self._dropped(cond, train)
    x = self.process.path.mix(z, eps, now)
    earlier = self._teacher_step(x, now, then, cond)
    ones = jnp.ones_like(now)
    value = self._compare(x, earlier, now, then, ones, cond, latent.mask, decay=self.decay, train=train)
    return {"consistency": value}


class ConsistencyTraining(Consistent, kw_only=True):
  """One that needs no teacher: x and `earlier` are mixed of the same data and the same noise, at neighbouring times:
    {"consistency"}: mean w distance(f(x, tau_n), sg f_target(earlier, tau_(n-1))).

  The defaults are iCT's. intervals: of the grid, whose number grows with the training passes, counted in the collection
  "target" at "updates". level: (mean, std) of the normal that ln(sigma / alpha) of an interval follows, as much as lies
  within it (iCT, equation 10, where it is (-1.1, 2) for data of deviation 0.5); None = every interval alike, as in
  algorithm 3. weighting: "gap" = 1 / (sigma(tau_n) - sigma(tau_(n-1))), "one" = 1. decay: of the average (algorithm 3
  has one, iCT none): decay^(n_0 / n) for n intervals, n_0 at first; 0 = the student itself. UserError as of its rival.
  """

  intervals: Doubling | Rising = Doubling()
  level: tuple[float, float] | None = (-1.1, 2.0)
  weighting: Literal["gap", "one"] = "gap"
  distance: Squared | PseudoHuber = PseudoHuber()
  decay: float = 0.0
  label_drop: float = 0.1
  sampler: Sampler = aside(Consistency(2))

  @nn.compact
  def loss(self, latent: Latent, cond: Cond | None, *, train: bool) -> Terms:
    """See the class; random intervals and noise."""
    self._check()
    z = self._continuous(latent)
    eps = jax.random.normal(self.make_rng("prior"), z.shape)
    stage = self._stage(train)
    times, chances = self._tables(z.shape[1:])
    draw = jax.random.uniform(self.make_rng("prior"), z.shape[:1])
    number = jnp.searchsorted(jnp.asarray(chances)[stage], draw, side="right")
    row = jnp.asarray(times)[stage]
    now, then = row[number + 1], row[number]
    cond = self._dropped(cond, train)
    path = self.process.path
    x, earlier = path.mix(z, eps, now), path.mix(z, eps, then)
    weights = 1 / (path.sigma(now) - path.sigma(then)) if self.weighting == "gap" else jnp.ones_like(now)
    counts = jnp.asarray(self.intervals.counts, jnp.float32)
    decay = self.decay ** ((counts[0] + 1) / (counts[stage] + 1)) if self.decay else 0.0
    value = self._compare(x, earlier, now, then, weights, cond, latent.mask, decay=decay, train=train)
    return {"consistency": value}

  def _stage(self, train: bool) -> Array:
    """Which of `intervals.counts` it is at, by the training passes that were counted; nothing counts to one."""
    if len(self.intervals.counts) == 1:
      return jnp.zeros((), jnp.int32)
    held = self.variable("target", "updates", lambda: jnp.zeros((), jnp.int32))
    update = held.value
    if train and not self.is_initializing():
      if not self.is_mutable_collection("target"):
        raise UserError('the intervals of consistency training grow with its passes: name "updates" in `trained`')
      held.value = update + 1
    return self.intervals(update)

  def _tables(self, shape: tuple[int, ...]) -> tuple[np.ndarray, np.ndarray]:
    """For each of the K numbers of intervals: times [K,most+1] from 0 to 1, then 1; and [K,most] float32, the chance of
    an interval or one before it, then 1."""
    counts = self.intervals.counts
    times = np.ones((len(counts), max(counts) + 1))
    chances = np.ones((len(counts), max(counts)))
    for k, count in enumerate(counts):
      times[k, : count + 1] = self._times(count, shape)
      within = np.ones(count) if self.level is None else self._within(times[k, : count + 1], *self.level)
      chances[k, :count] = np.cumsum(within) / within.sum()
      chances[k, count - 1 :] = 1.0
    return times.astype(np.float32), chances.astype(np.float32)

  def _within(self, times: np.ndarray, mean: float, std: float) -> np.ndarray:
    """[n+1] times -> [n]: how much of N(mean, std^2) of ln(sigma / alpha) lies between each two (equation 10)."""
    with np.errstate(divide="ignore"):
      log = -self.process.path.log_snr(times) / 2
    below = np.array([math.erf((x - mean) / (math.sqrt(2) * std)) for x in log])
    return np.diff(below)
