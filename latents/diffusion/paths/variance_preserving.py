"""Paths with alpha^2 + sigma^2 = 1 (Song et al. 2021, arXiv:2011.13456): variance preserving."""

import functools

from latents.diffusion.paths.base import Path, library, spread
from latents.types import Array


class VariancePreserving(Path):
  """Members give alpha, sigma and alpha'; the rest follows from the speed of the angle, `turn` = -alpha' / sigma.

  It has no bound at tau = 0 on paths that begin there with alpha' < 0 (the divisor stays at `floor`); those that do not
  give it themselves.
  """

  def turn(self, tau: Array) -> Array:
    """See `Path`."""
    return -self.alpha_slope(tau) / library(tau).maximum(self.sigma(tau), self.floor)

  def sigma_slope(self, tau: Array) -> Array:
    """See `Path`."""
    return self.alpha(tau) * self.turn(tau)

  def from_velocity(self, x: Array, v: Array, tau: Array) -> tuple[Array, Array]:
    """x0 = alpha x - (sigma / turn) v and eps = sigma x + (alpha / turn) v: no divisor is 0 at tau = 0."""
    wide = functools.partial(spread, x=x)
    alpha, sigma, turn = wide(self.alpha(tau)), wide(self.sigma(tau)), wide(self.turn(tau))
    return alpha * x - sigma / turn * v, sigma * x + alpha / turn * v
