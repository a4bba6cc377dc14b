"""The ancestral sampler: DDPM (Ho et al. 2020, arXiv:2006.11239, algorithm 2)."""

import dataclasses
from typing import Any, Literal

import jax.numpy as jnp
import numpy as np

from latents.diffusion.field import Field
from latents.diffusion.posterior import posterior
from latents.diffusion.samplers.base import check_keys, check_steps, fresh_noise, numbers, walk
from latents.errors import UserError
from latents.types import Array, later


@dataclasses.dataclass(frozen=True)
class DDPM:
  """Each step draws from q(x_s | x_t, x0 as estimated), on any path and any grid; the last, to the data, adds no noise.

  variance: "small" is q's own, "large" is DDPM's beta; "learned" lies between them where the network says so
  (iDDPM, arXiv:2102.09672, eq. 15), and needs a process of learned variance. `grids.Strided` are iDDPM's times.
  temperature: multiplies the noise of the steps.
  """

  steps: int = 250
  variance: Literal["small", "large", "learned"] = "small"
  temperature: float = later(1.0)

  def __post_init__(self) -> None:
    check_steps(self.steps)

  def __call__(
    self, field: Field, x: Array, times: np.ndarray, *, guided: np.ndarray | None = None, keys: Array = None
  ) -> Array:
    """See the room's contract. UserError without keys, or where a variance is asked for that is not learned."""
    keys = check_keys(keys, "DDPM")
    if self.variance == "learned" and not field.learned:
      raise UserError('DDPM(variance="learned") needs a prior whose process has variance="learned"')
    q = posterior(field.path, times[:-1], times[1:])
    small, large = np.where(q.small > 0, q.small, q.large), q.large  # where small is 0 no noise is added
    tables = numbers(x, times[:-1], q.of_x, q.of_data, np.log(small), np.log(large), times[1:] > 0)

    def step(field: Field, x: Array, given: tuple[Array, ...]) -> Array:
      number, now, of_x, of_data, small, large, noisy = given
      data, share = field.read("data", x, now)
      fixed: Any = {"small": 0.0, "large": 1.0}.get(self.variance, share)
      deviation = jnp.exp((fixed * large + (1 - fixed) * small) / 2)
      noise = fresh_noise(keys, number, x)
      return of_x * x + of_data * data + noisy * self.temperature * deviation * noise

    return walk(step, field, x, (jnp.arange(len(times) - 1), *tables), guided)
