"""DPM-Solver++(2M): Lu et al. 2022, arXiv:2211.01095, algorithm 2."""

import dataclasses

import jax.numpy as jnp
import numpy as np

from latents.diffusion.field import Field
from latents.diffusion.samplers.base import check_steps, numbers, walk
from latents.types import Array


@dataclasses.dataclass(frozen=True)
class DPMSolver2M:
  """Order 2 with one evaluation a step: the estimate of the data is carried on along half the log-SNR, l.

  h = l' - l, r = h_before / h: D = x0 + (x0 - x0_before) / (2 r), x' = (sigma' / sigma) x - alpha' (e^-h - 1) D. The
  first step, and steps that begin without data or end without noise (h is infinite), are of order 1.
  """

  steps: int = 20

  def __post_init__(self) -> None:
    check_steps(self.steps)

  def __call__(
    self, field: Field, x: Array, times: np.ndarray, *, guided: np.ndarray | None = None, keys: Array = None
  ) -> Array:
    """See the room's contract."""
    del keys
    alpha, sigma = field.path.alpha(times), field.path.sigma(times)
    with np.errstate(divide="ignore", invalid="ignore"):
      h = np.diff(field.path.log_snr(times)) / 2
      half = np.concatenate([[0.0], h[1:] / (2 * h[:-1])])
    half[~np.isfinite(h) | ~np.isfinite(half)] = 0.0
    shrink = (alpha[:-1] * sigma[1:]) / (sigma[:-1] * alpha[1:])  # e^-h
    tables = numbers(x, times[:-1], sigma[1:] / sigma[:-1], alpha[1:] * (1 - shrink), half)

    def step(field: Field, carry: tuple[Array, Array], given: tuple[Array, ...]) -> tuple[Array, Array]:
      x, before = carry
      now, of_x, of_data, half = given
      data = field.data(x, now)
      return of_x * x + of_data * (data + half * (data - before)), data

    return walk(step, field, (x, jnp.zeros_like(x)), tables, guided)[0]
