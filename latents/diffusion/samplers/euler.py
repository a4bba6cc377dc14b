"""Euler's method."""

import dataclasses

import jax.numpy as jnp
import numpy as np

from latents.diffusion.field import Field
from latents.diffusion.samplers.base import check_steps, walk
from latents.types import Array


@dataclasses.dataclass(frozen=True)
class Euler:
  """x + (tau' - tau) v(x, tau): order 1, one evaluation a step."""

  steps: int = 50

  def __post_init__(self) -> None:
    check_steps(self.steps)

  def __call__(
    self, field: Field, x: Array, times: np.ndarray, *, guided: np.ndarray | None = None, keys: Array = None
  ) -> Array:
    """See the room's contract."""
    del keys

    def step(field: Field, x: Array, pair: tuple[Array, Array]) -> Array:
      now, then = pair
      return x + (then - now) * field(x, now)

    grid = jnp.asarray(times, x.dtype)
    return walk(step, field, x, (grid[:-1], grid[1:]), guided)
