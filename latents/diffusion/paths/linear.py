"""The linear path: flow matching (Lipman et al. 2023, arXiv:2210.02747), rectified flow (Liu et al. 2209.03003)."""

import dataclasses

from latents.diffusion.paths.base import Path, library, spread
from latents.errors import UserError
from latents.types import Array, later


@dataclasses.dataclass(frozen=True)
class Linear(Path):
  """alpha = 1 - tau, sigma = noise tau: x_tau = (1 - tau) x0 + tau noise eps, v = noise eps - x0 at every tau.

  noise: the deviation of the noise; JiT (arXiv:2511.13720) has side / 256 for pixels in [-1,1]. UserError for noise
  <= 0.
  """

  noise: float = later(1.0)

  def __post_init__(self) -> None:
    if not self.noise > 0:
      raise UserError(f"the noise of a path has a deviation above 0, not {self.noise}")

  @property
  def scale(self) -> float:
    """See `Path`."""
    return self.noise

  def alpha(self, tau: Array) -> Array:
    """See `Path`."""
    return 1 - tau

  def sigma(self, tau: Array) -> Array:
    """See `Path`."""
    return self.noise * tau

  def alpha_slope(self, tau: Array) -> Array:
    """See `Path`."""
    return 0 * tau - 1

  def sigma_slope(self, tau: Array) -> Array:
    """See `Path`."""
    return 0 * tau + self.noise

  def log_snr(self, tau: Array) -> Array:
    """lambda = log((1 - tau)^2 / (noise tau)^2)."""
    return 2 * (library(tau).log1p(-tau) - library(tau).log(self.sigma(tau)))

  def velocity(self, x0: Array, eps: Array, tau: Array) -> Array:
    """v = noise eps - x0."""
    del tau
    return self.noise * eps - x0

  def from_velocity(self, x: Array, v: Array, tau: Array) -> tuple[Array, Array]:
    """x0 = x - tau v and noise eps = x + (1 - tau) v: alpha sigma' - alpha' sigma is the noise."""
    tau = spread(tau, x)
    return x - tau * v, (x + (1 - tau) * v) / self.noise
