"""The variance-preserving path of continuous time: score SDEs (Song et al. 2021, arXiv:2011.13456)."""

import dataclasses

from latents.diffusion.paths.base import library
from latents.diffusion.paths.variance_preserving import VariancePreserving
from latents.errors import UserError
from latents.types import Array


@dataclasses.dataclass(frozen=True)
class Continuous(VariancePreserving):
  """log alpha(tau)^2 = -(low tau + (high - low) tau^2 / 2): beta rises evenly from `low` to `high`.

  The limit of `Betas` with ever more steps; SiT's VP path (arXiv:2401.08740). UserError unless 0 < low <= high.
  """

  low: float = 0.1
  high: float = 20.0

  def __post_init__(self) -> None:
    if not 0 < self.low <= self.high:
      raise UserError(f"beta rises from above 0, not from {self.low} to {self.high}")

  def _log_bar(self, tau: Array) -> Array:
    return -(self.low * tau + (self.high - self.low) * tau**2 / 2)

  def alpha(self, tau: Array) -> Array:
    """See `Path`."""
    return library(tau).exp(self._log_bar(tau) / 2)

  def sigma(self, tau: Array) -> Array:
    """See `Path`."""
    return library(tau).sqrt(-library(tau).expm1(self._log_bar(tau)))

  def alpha_slope(self, tau: Array) -> Array:
    """See `Path`."""
    return -(self.low + (self.high - self.low) * tau) / 2 * self.alpha(tau)

  def log_snr(self, tau: Array) -> Array:
    """See `Path`."""
    log_bar = self._log_bar(tau)
    return log_bar - library(tau).log(-library(tau).expm1(log_bar))
