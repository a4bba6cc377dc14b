"""The paths of DDPM (Ho et al. 2020, arXiv:2006.11239) and LDM (Rombach et al. 2022, arXiv:2112.10752), from tables."""

import dataclasses
import functools
from typing import Literal

import numpy as np

from latents.diffusion.paths.base import library
from latents.diffusion.paths.variance_preserving import VariancePreserving
from latents.errors import UserError
from latents.types import Array


@functools.cache
def table(low: float, high: float, steps: int, rise: str) -> np.ndarray:
  """[steps+1] float64: log alpha_bar_t, the sum of log(1 - beta_s) over s <= t; 0 at t = 0."""
  betas = np.linspace(low, high, steps) if rise == "linear" else np.linspace(low**0.5, high**0.5, steps) ** 2
  return np.concatenate([[0.0], np.cumsum(np.log1p(-betas))])


@dataclasses.dataclass(frozen=True)
class Betas(VariancePreserving):
  """alpha(t / steps)^2 = alpha_bar_t = prod (1 - beta_s), beta rising from `low` to `high`; step t = 1..steps.

  Between two steps log alpha_bar is a straight line. rise: "linear" is DDPM's; "root" rises evenly in sqrt(beta), as
  LDM's (0.0015 to 0.0195 on ImageNet). A backbone sees tau, and embeds 1000 tau = t. Raises UserError for betas
  outside (0,1) or fewer than 2 steps.
  """

  low: float = 1e-4
  high: float = 0.02
  steps: int = 1000
  rise: Literal["linear", "root"] = "linear"

  def __post_init__(self) -> None:
    if not 0 < self.low <= self.high < 1 or self.steps < 2:
      raise UserError(f"betas rise within (0,1) over at least 2 steps, not {self.low} to {self.high} over {self.steps}")

  def _log_bar(self, tau: Array) -> Array:
    log_bar = table(self.low, self.high, self.steps, self.rise)
    return library(tau).interp(tau * self.steps, np.arange(self.steps + 1), log_bar)

  def alpha(self, tau: Array) -> Array:
    """See `Path`."""
    return library(tau).exp(self._log_bar(tau) / 2)

  def sigma(self, tau: Array) -> Array:
    """See `Path`."""
    return library(tau).sqrt(-library(tau).expm1(self._log_bar(tau)))

  def alpha_slope(self, tau: Array) -> Array:
    """See `Path`; at a step, the slope of the line that ends there."""
    xp = library(tau)
    step = xp.clip(xp.ceil(tau * self.steps), 1, self.steps).astype(int)
    slopes = xp.asarray(np.diff(table(self.low, self.high, self.steps, self.rise)) * self.steps)
    return slopes[step - 1] / 2 * self.alpha(tau)

  def log_snr(self, tau: Array) -> Array:
    """See `Path`."""
    log_bar = self._log_bar(tau)
    return log_bar - library(tau).log(-library(tau).expm1(log_bar))
