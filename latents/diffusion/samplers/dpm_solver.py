"""DPM-Solver++(2M): Lu et al. 2022, arXiv:2211.01095, algorithm 2, and its SDE form."""

import dataclasses

import jax.numpy as jnp
import numpy as np

from latents.diffusion.field import Field
from latents.diffusion.samplers.base import check_keys, check_steps, fresh_noise, numbers, walk
from latents.types import Array, later


@dataclasses.dataclass(frozen=True)
class DPMSolver2M:
  """Order 2 with one evaluation a step: the estimate of the data is carried on along half the log-SNR, l.

  h = l' - l, r = h_before / h: D = x0 + (x0 - x0_before) / (2 r), x' = (sigma' / sigma) x - alpha' (e^-h - 1) D. The
  first step, and steps that begin without data or end without noise (h is infinite), are of order 1.
  stochastic: x' = (sigma' / sigma) e^-h x + alpha' (1 - e^-2h) D + sigma' sqrt(1 - e^-2h) z.
  """

  steps: int = 20
  stochastic: bool = later(False)

  def __post_init__(self) -> None:
    check_steps(self.steps)

  def __call__(
    self, field: Field, x: Array, times: np.ndarray, *, guided: np.ndarray | None = None, keys: Array = None
  ) -> Array:
    """See the room's contract. UserError without keys where it is stochastic."""
    keys = check_keys(keys, "DPMSolver2M(stochastic=True)") if self.stochastic else None
    alpha, sigma = field.path.alpha(times), field.path.sigma(times)
    with np.errstate(divide="ignore", invalid="ignore"):
      h = np.diff(field.path.log_snr(times)) / 2
      half = np.concatenate([[0.0], h[1:] / (2 * h[:-1])])
    half[~np.isfinite(h) | ~np.isfinite(half)] = 0.0
    keep = (alpha[:-1] * sigma[1:]) / (sigma[:-1] * alpha[1:])  # e^-h
    fresh = np.sqrt(1 - keep**2) if self.stochastic else np.zeros_like(keep)
    of_x = sigma[1:] / sigma[:-1] * (keep if self.stochastic else 1)
    of_data = alpha[1:] * (fresh**2 if self.stochastic else 1 - keep)
    tables = numbers(x, times[:-1], of_x, of_data, half, sigma[1:] * fresh)

    def step(field: Field, carry: tuple[Array, Array], given: tuple[Array, ...]) -> tuple[Array, Array]:
      x, before = carry
      number, now, of_x, of_data, half, deviation = given
      data = field.data(x, now)
      x = of_x * x + of_data * (data + half * (data - before))
      return x if keys is None else x + deviation * fresh_noise(keys, number, x), data

    carry = (x, jnp.zeros_like(x))
    return walk(step, field, carry, (jnp.arange(len(times) - 1), *tables), guided)[0]
