"""Sampling by jumps to the data: consistency models (Song et al. 2023, arXiv:2303.01469, algorithm 1)."""

import dataclasses

import jax.numpy as jnp
import numpy as np

from latents.diffusion.field import Field
from latents.diffusion.samplers.base import check_keys, check_steps, fresh_noise, numbers, walk
from latents.types import Array


@dataclasses.dataclass(frozen=True)
class Consistency:
  """Each step takes the field's estimate of the data, and mixes it with fresh noise at the next time."""

  steps: int = 2

  def __post_init__(self) -> None:
    check_steps(self.steps)

  def __call__(
    self, field: Field, x: Array, times: np.ndarray, *, guided: np.ndarray | None = None, keys: Array = None
  ) -> Array:
    """See the room's contract. UserError without keys."""
    keys = check_keys(keys, "Consistency")
    tables = numbers(x, times[:-1], field.path.alpha(times[1:]), field.path.sigma(times[1:]))

    def step(field: Field, x: Array, given: tuple[Array, ...]) -> Array:
      number, now, alpha, sigma = given
      return alpha * field.data(x, now) + sigma * fresh_noise(keys, number, x)

    return walk(step, field, x, (jnp.arange(len(times) - 1), *tables), guided)
