"""Euler and Maruyama's method on the reverse SDE of a velocity: SiT (Ma et al. 2024, arXiv:2401.08740)."""

import dataclasses
from typing import Literal

import jax.numpy as jnp
import numpy as np

from latents.diffusion.field import Field
from latents.diffusion.samplers.base import check_keys, check_steps, fresh_noise, numbers, walk
from latents.types import Array


@dataclasses.dataclass(frozen=True)
class EulerMaruyama:
  """dX = (v - w/2 score) dtau + sqrt(w) dW, from tau = 1 down: its marginals are those of the flow for every w >= 0.

  rate: w = 2 scale times "sigma": sigma sigma' (tau on the linear path, as in SiT and REPA; the SDE of EDM's path), or
  "constant": 1. The last step adds no noise, as in REPA (Yu et al. 2024, arXiv:2410.06940): what it removes of the
  data's variance falls with its length (`grids.Early` has theirs).
  """

  steps: int = 250
  rate: Literal["sigma", "constant"] = "sigma"
  scale: float = 1.0

  def __post_init__(self) -> None:
    check_steps(self.steps)

  def __call__(
    self, field: Field, x: Array, times: np.ndarray, *, guided: np.ndarray | None = None, keys: Array = None
  ) -> Array:
    """See the room's contract. UserError without keys."""
    keys, path, now, h = check_keys(keys, "EulerMaruyama"), field.path, times[:-1], np.diff(times)
    sigma = path.sigma(now)
    w = 2 * self.scale * (sigma * path.sigma_slope(now) if self.rate == "sigma" else np.ones_like(now))
    noisy = np.arange(len(now)) < len(now) - 1
    tables = numbers(x, now, h, w / (2 * sigma), noisy * np.sqrt(w * -h))

    def step(field: Field, x: Array, given: tuple[Array, ...]) -> Array:
      number, now, h, pull, deviation = given  # score = -eps / sigma
      velocity = field(x, now)
      noise = path.convert(velocity, "velocity", "noise", x, now)
      return x + h * (velocity + pull * noise) + deviation * fresh_noise(keys, number, x)

    return walk(step, field, x, (jnp.arange(len(now)), *tables), guided)
