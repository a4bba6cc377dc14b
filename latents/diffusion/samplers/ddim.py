"""DDIM: Song, Meng, Ermon 2020, arXiv:2010.02502, eqs. 12 and 16."""

import dataclasses

import jax.numpy as jnp
import numpy as np

from latents.diffusion.field import Field
from latents.diffusion.posterior import posterior
from latents.diffusion.samplers.base import check_keys, check_steps, fresh_noise, numbers, walk
from latents.errors import UserError
from latents.types import Array


@dataclasses.dataclass(frozen=True)
class DDIM:
  """alpha' x0 + sqrt(sigma'^2 - s^2) eps + s z, s = eta times the deviation of q(x_s | x_t, x0); on any path.

  eta = 0 draws nothing and is exact where the estimates do not change along a step (Euler's step in sigma / alpha);
  1 is `DDPM`. UserError for eta outside [0,1].
  """

  steps: int = 50
  eta: float = 0.0

  def __post_init__(self) -> None:
    check_steps(self.steps)
    if not 0 <= self.eta <= 1:
      raise UserError(f"DDIM's eta is in [0, 1], not {self.eta}")

  def __call__(
    self, field: Field, x: Array, times: np.ndarray, *, guided: np.ndarray | None = None, keys: Array = None
  ) -> Array:
    """See the room's contract. UserError without keys where eta > 0."""
    path, now, then = field.path, times[:-1], times[1:]
    keys = check_keys(keys, "DDIM with eta > 0") if self.eta else None
    deviation = self.eta * np.sqrt(posterior(path, now, then).small)
    keep = np.sqrt(np.maximum(path.sigma(then) ** 2 - deviation**2, 0)) / path.sigma(now)
    tables = numbers(x, now, keep, path.alpha(then) - keep * path.alpha(now), deviation)

    def step(field: Field, x: Array, given: tuple[Array, ...]) -> Array:
      number, now, of_x, of_data, deviation = given
      mean = of_x * x + of_data * field.data(x, now)
      return mean if keys is None else mean + deviation * fresh_noise(keys, number, x)

    return walk(step, field, x, (jnp.arange(len(now)), *tables), guided)
