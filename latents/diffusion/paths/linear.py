"""The linear path: flow matching (Lipman et al. 2023, arXiv:2210.02747), rectified flow (Liu et al. 2209.03003)."""

import dataclasses

from latents.diffusion.paths.base import Path, library, spread
from latents.types import Array


@dataclasses.dataclass(frozen=True)
class Linear(Path):
  """alpha = 1 - tau, sigma = tau: x_tau = (1 - tau) x0 + tau eps, v = eps - x0 at every tau."""

  def alpha(self, tau: Array) -> Array:
    """See `Path`."""
    return 1 - tau

  def sigma(self, tau: Array) -> Array:
    """See `Path`."""
    return tau

  def alpha_slope(self, tau: Array) -> Array:
    """See `Path`."""
    return 0 * tau - 1

  def sigma_slope(self, tau: Array) -> Array:
    """See `Path`."""
    return 0 * tau + 1

  def log_snr(self, tau: Array) -> Array:
    """lambda = log((1 - tau)^2 / tau^2)."""
    return 2 * (library(tau).log1p(-tau) - library(tau).log(tau))

  def velocity(self, x0: Array, eps: Array, tau: Array) -> Array:
    """v = eps - x0."""
    del tau
    return eps - x0

  def from_velocity(self, x: Array, v: Array, tau: Array) -> tuple[Array, Array]:
    """x0 = x - tau v and eps = x + (1 - tau) v: alpha sigma' - alpha' sigma is 1."""
    tau = spread(tau, x)
    return x - tau * v, x + (1 - tau) * v
