"""The cosine path: iDDPM (Nichol & Dhariwal 2021, arXiv:2102.09672, eq. 17)."""

import dataclasses
import math

from latents.diffusion.paths.base import library
from latents.diffusion.paths.variance_preserving import VariancePreserving
from latents.types import Array


@dataclasses.dataclass(frozen=True)
class Cosine(VariancePreserving):
  """alpha = cos(u) / cos(u_0), u = (tau + offset) / (1 + offset) pi / 2, u_0 that of tau = 0; alpha(1) = 0.

  offset = 0: alpha = cos(pi tau / 2), sigma = sin(pi tau / 2), the trigonometric path (GVP) of stochastic interpolants
  (Albergo & Vanden-Eijnden 2022, arXiv:2209.15571) and SiT (arXiv:2401.08740).
  """

  offset: float = 0.008

  def _angles(self, tau: Array) -> tuple[Array, float]:
    """u - u_0 and u_0."""
    scale = math.pi / 2 / (1 + self.offset)
    return tau * scale, self.offset * scale

  def alpha(self, tau: Array) -> Array:
    """See `Path`."""
    turn, first = self._angles(tau)
    return library(tau).maximum(library(tau).cos(first + turn), 0) / math.cos(first)

  def sigma(self, tau: Array) -> Array:
    """See `Path`: sqrt(sin(u - u_0) sin(u + u_0)) / cos(u_0), which keeps its digits near tau = 0."""
    xp, (turn, first) = library(tau), self._angles(tau)
    product = xp.sin(turn) * xp.sin(turn + 2 * first)
    return xp.sqrt(xp.clip(product, 0, None)) / math.cos(first)

  def alpha_slope(self, tau: Array) -> Array:
    """See `Path`."""
    turn, first = self._angles(tau)
    return -library(tau).sin(first + turn) * (math.pi / 2 / (1 + self.offset)) / math.cos(first)

  def turn(self, tau: Array) -> Array:
    """See `Path`; without an offset pi / 2 everywhere."""
    return 0 * tau + math.pi / 2 if self.offset == 0 else super().turn(tau)
