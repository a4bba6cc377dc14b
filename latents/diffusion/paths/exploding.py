"""The variance-exploding path: NCSN's (Song et al. 2021, arXiv:2011.13456), with EDM's sigma = t (arXiv:2206.00364)."""

import dataclasses

from latents.diffusion.paths.base import Path, library
from latents.errors import UserError
from latents.types import Array


@dataclasses.dataclass(frozen=True)
class Exploding(Path):
  """alpha = 1, sigma = most tau: x_tau = x0 + sigma eps. `most` is EDM's sigma_max. UserError for most <= 0."""

  most: float = 80.0

  def __post_init__(self) -> None:
    if not self.most > 0:
      raise UserError(f"the noise of a path grows to more than 0, not to {self.most}")

  @property
  def scale(self) -> float:
    """See `Path`."""
    return self.most

  def alpha(self, tau: Array) -> Array:
    """See `Path`."""
    return 0 * tau + 1

  def sigma(self, tau: Array) -> Array:
    """See `Path`."""
    return self.most * tau

  def alpha_slope(self, tau: Array) -> Array:
    """See `Path`."""
    return 0 * tau

  def sigma_slope(self, tau: Array) -> Array:
    """See `Path`."""
    return 0 * tau + self.most

  def log_snr(self, tau: Array) -> Array:
    """See `Path`."""
    return -2 * library(tau).log(self.sigma(tau))
