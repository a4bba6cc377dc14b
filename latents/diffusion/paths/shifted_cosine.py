"""The cosine path for larger signals: simple diffusion (Hoogeboom et al. 2023, arXiv:2301.11093)."""

import dataclasses
import math

from latents.diffusion.paths.base import library
from latents.diffusion.paths.variance_preserving import VariancePreserving
from latents.errors import UserError
from latents.types import Array


@dataclasses.dataclass(frozen=True)
class ShiftedCosine(VariancePreserving):
  """log_snr = -2 log tan(pi tau / 2) + 2 log(noise(tau) / side), for signals of `side` x `side` values.

  The signal, averaged to `noise` x `noise`, has the log-SNR of the cosine path. fine: noise(tau) = noise^tau
  fine^(1-tau), from `noise` where there is noise alone to `fine` at the data (theirs: 32 and the side itself); None =
  `noise` at every time. They cut log-SNR at +-15 by times that stay 3.5e-4 away from both ends; here the ends are
  exact. UserError unless side > 0 and 0 < noise <= fine.
  """

  side: int = 64
  noise: float = 64.0
  fine: float | None = None

  def __post_init__(self) -> None:
    if not (self.side > 0 and 0 < self.noise <= self._fine):
      raise UserError(f"{self}: the side is above 0, and 0 < noise <= fine")

  @property
  def _fine(self) -> float:
    return self.noise if self.fine is None else self.fine

  def _parts(self, tau: Array) -> tuple[Array, Array, Array]:
    """cos u, rho sin u, and the root of the sum of their squares; sigma / alpha = rho tan u = side / noise tan u."""
    xp, u = library(tau), tau * (math.pi / 2)
    rho = self.side / (self.noise**tau * self._fine ** (1 - tau))
    cos, sin = xp.maximum(xp.cos(u), 0), rho * xp.sin(u)
    return cos, sin, xp.sqrt(cos**2 + sin**2)

  def alpha(self, tau: Array) -> Array:
    """See `Path`."""
    cos, _, length = self._parts(tau)
    return cos / length

  def sigma(self, tau: Array) -> Array:
    """See `Path`."""
    _, sin, length = self._parts(tau)
    return sin / length

  def turn(self, tau: Array) -> Array:
    """See `Path`: alpha sigma d log(sigma / alpha) / d tau; d log tan u / d u = 1 / (sin u cos u)."""
    xp = library(tau)
    rho = self.side / (self.noise**tau * self._fine ** (1 - tau))
    growth = math.log(self._fine / self.noise)
    return rho * (math.pi / 2 + growth * xp.sin(math.pi * tau) / 2) / self._parts(tau)[2] ** 2

  def alpha_slope(self, tau: Array) -> Array:
    """See `Path`."""
    return -self.sigma(tau) * self.turn(tau)
