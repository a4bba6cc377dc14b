"""Runge and Kutta's method of order 4."""

import dataclasses

import numpy as np

from latents.diffusion.field import Field
from latents.diffusion.samplers.base import check_steps, numbers, walk
from latents.errors import UserError
from latents.types import Array


@dataclasses.dataclass(frozen=True)
class RK4:
  """The classical method: order 4, four evaluations a step, the last where the step ends.

  So a walk to tau = 0 needs a network that tells the velocity there: one that predicts it.
  """

  steps: int = 12

  def __post_init__(self) -> None:
    check_steps(self.steps)

  def __call__(
    self, field: Field, x: Array, times: np.ndarray, *, guided: np.ndarray | None = None, keys: Array = None
  ) -> Array:
    """See the room's contract. UserError for a walk to tau = 0 with a network that does not predict the velocity."""
    del keys
    if times[-1] == 0 and (predict := field.process.predict) != "velocity":
      raise UserError(f'RK4 needs the velocity at tau = 0, and predict="{predict}" does not tell it: take Midpoint')

    def step(field: Field, x: Array, given: tuple[Array, ...]) -> Array:
      now, h = given
      one = field(x, now)
      two = field(x + h / 2 * one, now + h / 2)
      three = field(x + h / 2 * two, now + h / 2)
      return x + h / 6 * (one + 2 * two + 2 * three + field(x + h * three, now + h))

    return walk(step, field, x, numbers(x, times[:-1], np.diff(times)), guided)
