"""Paths with alpha^2 + sigma^2 = 1 (Song et al. 2021, arXiv:2011.13456): variance preserving."""

import functools

from latents.diffusion.paths.base import Path, library, spread
from latents.types import Array


class VariancePreserving(Path):
  """Members give alpha, sigma and alpha'; the rest follows: sigma' = -alpha alpha' / sigma."""

  def sigma_slope(self, tau: Array) -> Array:
    """See `Path`; without a bound at tau = 0, where the divisor stays at `floor`."""
    return -self.alpha(tau) * self.alpha_slope(tau) / library(tau).maximum(self.sigma(tau), self.floor)

  def from_velocity(self, x: Array, v: Array, tau: Array) -> tuple[Array, Array]:
    """x0 = alpha x + (sigma^2 / alpha') v and eps = sigma x - (sigma alpha / alpha') v: no divisor is 0 at tau = 0."""
    wide = functools.partial(spread, x=x)
    alpha, sigma, slope = wide(self.alpha(tau)), wide(self.sigma(tau)), wide(self.alpha_slope(tau))
    return alpha * x + sigma**2 / slope * v, sigma * x - sigma * alpha / slope * v

  def unit(self, kind, tau: Array) -> Array:
    """See `Path`; as a velocity |alpha'| / sigma^2."""
    if kind != "velocity":
      return super().unit(kind, tau)
    return -self.alpha_slope(tau) / library(tau).maximum(self.sigma(tau), self.floor) ** 2
