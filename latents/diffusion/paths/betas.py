"""The paths of DDPM (Ho et al. 2020, arXiv:2006.11239) and LDM (Rombach et al. 2022, arXiv:2112.10752), from tables."""

import dataclasses
import functools
from typing import Literal

import numpy as np

from latents.diffusion.paths.base import library
from latents.diffusion.paths.variance_preserving import VariancePreserving
from latents.errors import UserError
from latents.types import Array, later


@functools.cache
def table(low: float, high: float, steps: int, rise: str, zero_snr: bool = False) -> np.ndarray:
  """[steps+1] float64: log alpha_bar_t, the sum of log(1 - beta_s) over s <= t; 0 at t = 0.

  zero_snr: sqrt(alpha_bar) of steps 1..T is shifted to end at 0, and scaled to begin as it was; the last is left out.
  """
  betas = np.linspace(low, high, steps) if rise == "linear" else np.linspace(low**0.5, high**0.5, steps) ** 2
  log_bar = np.concatenate([[0.0], np.cumsum(np.log1p(-betas))])
  if not zero_snr:
    return log_bar
  alpha = np.exp(log_bar / 2)
  shifted = (alpha[1:-1] - alpha[-1]) * alpha[1] / (alpha[1] - alpha[-1])
  return np.concatenate([[0.0], 2 * np.log(shifted)])


@dataclasses.dataclass(frozen=True)
class Betas(VariancePreserving):
  """alpha(t / steps)^2 = alpha_bar_t = prod (1 - beta_s), beta rising from `low` to `high`; step t = 1..steps.

  Between two steps log alpha_bar is a straight line. rise: "linear" is DDPM's; "root" rises evenly in sqrt(beta), as
  LDM's (0.0015 to 0.0195 on ImageNet). zero_snr: alpha(1) = 0 exactly (Lin et al. 2023, arXiv:2305.08891, algorithm 1;
  in the last step alpha is a straight line): for networks that predict the velocity or the data. A backbone sees tau,
  and embeds 1000 tau = t. Raises UserError for betas outside (0,1) or fewer than 2 steps.
  """

  low: float = 1e-4
  high: float = 0.02
  steps: int = 1000
  rise: Literal["linear", "root"] = "linear"
  zero_snr: bool = later(False)

  def __post_init__(self) -> None:
    if not 0 < self.low <= self.high < 1 or self.steps < 2:
      raise UserError(f"betas rise within (0,1) over at least 2 steps, not {self.low} to {self.high} over {self.steps}")

  def _table(self) -> np.ndarray:
    return table(self.low, self.high, self.steps, self.rise, self.zero_snr)

  def _log_bar(self, tau: Array) -> Array:
    xp, log_bar = library(tau), self._table()
    found = xp.interp(tau * self.steps, np.arange(len(log_bar)), log_bar)
    if not self.zero_snr:
      return found
    with np.errstate(divide="ignore"):
      return found + 2 * xp.log(xp.clip(self.steps * (1 - tau), 0, 1))

  def alpha(self, tau: Array) -> Array:
    """See `Path`."""
    return library(tau).exp(self._log_bar(tau) / 2)

  def sigma(self, tau: Array) -> Array:
    """See `Path`."""
    return library(tau).sqrt(-library(tau).expm1(self._log_bar(tau)))

  def alpha_slope(self, tau: Array) -> Array:
    """See `Path`; at a step, the slope of the line that ends there."""
    xp, log_bar = library(tau), self._table()
    step = xp.clip(xp.ceil(tau * self.steps), 1, self.steps).astype(int)
    slopes = xp.asarray(np.diff(log_bar) * self.steps)
    within = slopes[xp.minimum(step, len(slopes)) - 1] / 2 * self.alpha(tau)
    return xp.where(step > len(slopes), -self.steps * np.exp(log_bar[-1] / 2), within)

  def log_snr(self, tau: Array) -> Array:
    """See `Path`."""
    log_bar = self._log_bar(tau)
    return log_bar - library(tau).log(-library(tau).expm1(log_bar))
