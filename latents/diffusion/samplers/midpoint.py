"""The midpoint method."""

import dataclasses

import numpy as np

from latents.diffusion.field import Field
from latents.diffusion.samplers.base import check_steps, numbers, walk
from latents.types import Array


@dataclasses.dataclass(frozen=True)
class Midpoint:
  """x + h v(x + h/2 v(x, tau), tau + h/2): order 2, two evaluations a step, none at tau = 0."""

  steps: int = 25

  def __post_init__(self) -> None:
    check_steps(self.steps)

  def __call__(
    self, field: Field, x: Array, times: np.ndarray, *, guided: np.ndarray | None = None, keys: Array = None
  ) -> Array:
    """See the room's contract."""
    del keys

    def step(field: Field, x: Array, given: tuple[Array, ...]) -> Array:
      now, h = given
      return x + h * field(x + h / 2 * field(x, now), now + h / 2)

    return walk(step, field, x, numbers(x, times[:-1], np.diff(times)), guided)
