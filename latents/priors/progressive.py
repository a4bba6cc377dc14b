"""Progressive distillation: Salimans & Ho 2022, arXiv:2202.00512."""

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np

from latents.diffusion.paths import Linear, Path, spread
from latents.diffusion.samplers import DDIM, Euler, Sampler
from latents.errors import UserError
from latents.priors.few_step import Taught
from latents.priors.flow import FlowPrior
from latents.types import Array, Cond, Latent, Terms, aside


def one_step(path: Path, x: Array, now: Array, end: Array, reached: Array) -> Array:
  """The estimate of the data at (x, now) whose DDIM step ends in `reached` at `end` (algorithm 2, appendix G).

  data = (reached - q x) / (alpha(end) - q alpha(now)), q = sigma(end) / sigma(now).
  """
  ratio = path.sigma(end) / path.sigma(now)
  return (reached - spread(ratio, x) * x) / spread(path.alpha(end) - ratio * path.alpha(now), x)


class ProgressiveDistillation(Taught, kw_only=True):
  """A `FlowPrior` that goes in one step where its teacher goes in two (algorithm 2).

  At a time of the grid of `steps`, the teacher takes two steps that are exact for its estimate (DDIM's; on the linear
  path Euler's); the student's data is the one whose single step ends there (`one_step`), and it is compared with it as
  its process says: {"flow"}, as of a `FlowPrior`, the paper's weight "SNR + 1" being a velocity's.

  teacher: untrained, the stage of the round before: `Start(stage=..., source="backbone", into="teacher/backbone")`; the
  student begins as the teacher: `into="backbone"`; `trained=("backbone",)`. teacher_guidance: scale with which the
  teacher steps, so that no student needs any: 1 in all rounds but the first. Sampling takes `steps`, or as many as
  divide them, on the same grid, with a step that is DDIM's. UserError for another number, for a grid whose steps do not
  halve, for another path than the teacher's, or a learned variance.
  """

  teacher: FlowPrior
  steps: int = 4
  teacher_guidance: float = 1.0
  label_drop: float = 0.0
  sampler: Sampler = aside(Euler(4))

  @nn.compact
  def loss(self, latent: Latent, cond: Cond | None, *, train: bool) -> Terms:
    """See the class; random times of the grid, and noise."""
    self._check()
    z, path = self._continuous(latent), self.process.path
    eps = jax.random.normal(self.make_rng("prior"), z.shape)
    number = 2 * jax.random.randint(self.make_rng("prior"), z.shape[:1], 1, self.steps + 1)
    times = jnp.asarray(self._times(z.shape[1:]), jnp.float32)
    now, middle, end = times[number], times[number - 1], times[number - 2]
    cond = self._dropped(cond, train)
    x = path.mix(z, eps, now)
    half = self._teacher_step(x, now, middle, cond)
    data = one_step(path, x, now, end, self._teacher_step(half, middle, end, cond))
    network, params = self._student(x, now, cond, train)
    out = network(params, x, now, cond)
    (error, weight) = self.process.terms(out, data, path.from_data(x, data, now), x, now)["flow"]
    return {"flow": weight * self._mean(error.mean(-1), latent.mask)}

  def _times(self, shape: tuple[int, ...]) -> np.ndarray:
    """[2 steps + 1] from 0 to 1: the teacher's grid, of which every second time is the student's."""
    shift = self._shift(shape)
    times = self.grid(2 * self.steps, shift)
    if not np.allclose(times[::2], self.grid(self.steps, shift)):
      raise UserError(f"the steps of {self.grid} do not halve from {2 * self.steps} to {self.steps}: take Even")
    return times[::-1]

  def _check(self) -> None:
    self._check_teacher()
    if self.process.variance != "none":
      raise UserError("progressive distillation steps without noise: a learned variance has no reader")
    sampler = self.sampler
    plain = isinstance(sampler, Euler) and isinstance(self.process.path, Linear)
    if not plain and not (isinstance(sampler, DDIM) and sampler.eta == 0):
      raise UserError(f"this student's step is DDIM's (on the linear path Euler's), not that of {sampler}")
    if self.steps < 1 or self.steps % self.sampler.steps:
      raise UserError(
        f"this student was distilled to {self.steps} steps: it samples in {self.steps}, or in a number that divides "
        f"them, not in {self.sampler.steps}"
      )
