"""Adams and Bashforth's method of two steps."""

import dataclasses

import jax.numpy as jnp
import numpy as np

from latents.diffusion.field import Field
from latents.diffusion.samplers.base import check_steps, numbers, walk
from latents.types import Array


@dataclasses.dataclass(frozen=True)
class AB2:
  """x + h ((1 + r/2) v - r/2 v_before), r = h / h_before: order 2, one evaluation a step, none at tau = 0.

  The first step is Euler's; the order stays 2.
  """

  steps: int = 50

  def __post_init__(self) -> None:
    check_steps(self.steps)

  def __call__(
    self, field: Field, x: Array, times: np.ndarray, *, guided: np.ndarray | None = None, keys: Array = None
  ) -> Array:
    """See the room's contract."""
    del keys
    h = np.diff(times)
    half = np.concatenate([[0.0], h[1:] / h[:-1] / 2])

    def step(field: Field, carry: tuple[Array, Array], given: tuple[Array, ...]) -> tuple[Array, Array]:
      x, before = carry
      now, h, half = given
      here = field(x, now)
      return x + h * (here + half * (here - before)), here

    return walk(step, field, (x, jnp.zeros_like(x)), numbers(x, times[:-1], h, half), guided)[0]
