"""Heun's method."""

import dataclasses

import jax.numpy as jnp
import numpy as np

from latents.diffusion.field import Field
from latents.diffusion.samplers.base import check_steps, walk
from latents.diffusion.samplers.euler import Euler
from latents.types import Array


@dataclasses.dataclass(frozen=True)
class Heun:
  """Trapezoid with an Euler predictor: order 2, two evaluations a step.

  A step that ends at tau = 0 is Euler's: there networks are hardly trained (Karras et al. 2022,
  arXiv:2206.00364, algorithm 1). The order stays 2.
  """

  steps: int = 25

  def __post_init__(self) -> None:
    check_steps(self.steps)

  def __call__(
    self, field: Field, x: Array, times: np.ndarray, *, guided: np.ndarray | None = None, keys: Array = None
  ) -> Array:
    """See the room's contract."""
    del keys

    def step(field: Field, x: Array, pair: tuple[Array, Array]) -> Array:
      now, then = pair
      here = field(x, now)
      there = field(x + (then - now) * here, then)
      return x + (then - now) * (here + there) / 2

    to_data = float(times[-1]) == 0.0
    steps = len(times) - 1 - to_data
    first = jnp.asarray(times[: steps + 1], x.dtype)
    x = walk(step, field, x, (first[:-1], first[1:]), None if guided is None else guided[:steps])
    return Euler()(field, x, times[-2:], guided=None if guided is None else guided[-1:]) if to_data else x
