"""What all paths have in common: mixing data and noise, and the conversions between the parametrisations."""

from typing import Any, Literal

import jax
import jax.numpy as jnp
import numpy as np

from latents.types import Array

Kind = Literal["velocity", "data", "noise", "score"]


def spread(tau: Array, x: Array) -> Array:
  """tau [] or [B] -> [B,1,...] of x's rank, so that it multiplies x."""
  tau = jnp.asarray(tau, x.dtype)
  return tau.reshape(tau.shape + (1,) * (x.ndim - 1)) if tau.ndim else tau


def library(tau: Array) -> Any:
  """jax.numpy for arrays of JAX; numpy for numbers and arrays of numpy: a sampler's tables are float64."""
  return jnp if isinstance(tau, jax.Array) else np


class Path:
  """x_tau = alpha(tau) x0 + sigma(tau) eps and its velocity v = d x_tau / d tau = alpha' x0 + sigma' eps.

  tau in [0,1]: 0 = data (alpha 1, sigma 0), 1 = noise. `tau` is [] or [B] everywhere; x, x0, eps, v are [B,...].
  Members give the four functions of tau below. Divisors are never less than `floor`: at tau = 0 the noise, and at
  tau = 1 the data, cannot be told from x. `steps` is the length of the chain whose bound a learned variance follows.
  """

  floor = 1e-5
  steps = 1000

  @property
  def scale(self) -> float:
    """The standard deviation of the noise that sampling starts with; the data's share in it is neglected."""
    return 1.0

  def alpha(self, tau: Array) -> Array:
    """The share of the data, falling from 1."""
    raise TypeError(f"{type(self).__name__} has no alpha")

  def sigma(self, tau: Array) -> Array:
    """The share of the noise, rising from 0."""
    raise TypeError(f"{type(self).__name__} has no sigma")

  def alpha_slope(self, tau: Array) -> Array:
    """d alpha / d tau, negative."""
    raise TypeError(f"{type(self).__name__} has no alpha_slope")

  def sigma_slope(self, tau: Array) -> Array:
    """d sigma / d tau, positive."""
    raise TypeError(f"{type(self).__name__} has no sigma_slope")

  def log_snr(self, tau: Array) -> Array:
    """lambda = log(alpha^2 / sigma^2)."""
    log = library(tau).log
    return 2 * (log(self.alpha(tau)) - log(self.sigma(tau)))

  def turn(self, tau: Array) -> Array:
    """alpha sigma' - alpha' sigma > 0: with alpha^2 + sigma^2 = 1, the speed of the angle of (alpha, sigma)."""
    return self.alpha(tau) * self.sigma_slope(tau) - self.alpha_slope(tau) * self.sigma(tau)

  def log_snr_slope(self, tau: Array) -> Array:
    """-d log_snr / d tau = 2 turn / (alpha sigma) > 0: how fast log-SNR falls. Without a bound at both ends, where the
    divisors stay at `floor`."""
    xp = library(tau)
    return 2 * self.turn(tau) / (xp.maximum(self.alpha(tau), self.floor) * xp.maximum(self.sigma(tau), self.floor))

  def time(self, log_snr: np.ndarray) -> np.ndarray:
    """The tau in [0,1] at which log-SNR is that; by bisection, on the host, in float64."""
    low, high = np.zeros_like(log_snr, float), np.ones_like(log_snr, float)
    for _ in range(64):
      middle = (low + high) / 2
      with np.errstate(divide="ignore"):
        early = self.log_snr(middle) > log_snr
      low, high = np.where(early, middle, low), np.where(early, high, middle)
    return (low + high) / 2

  def mix(self, x0: Array, eps: Array, tau: Array) -> Array:
    """x_tau."""
    return spread(self.alpha(tau), x0) * x0 + spread(self.sigma(tau), x0) * eps

  def velocity(self, x0: Array, eps: Array, tau: Array) -> Array:
    """v = alpha' x0 + sigma' eps."""
    return spread(self.alpha_slope(tau), x0) * x0 + spread(self.sigma_slope(tau), x0) * eps

  def from_velocity(self, x: Array, v: Array, tau: Array) -> tuple[Array, Array]:
    """(x0, eps): the solution of x = alpha x0 + sigma eps and v = alpha' x0 + sigma' eps."""
    alpha, sigma, alpha_slope, sigma_slope, turn = (
      spread(f(tau), x) for f in (self.alpha, self.sigma, self.alpha_slope, self.sigma_slope, self.turn)
    )
    return (sigma_slope * x - sigma * v) / turn, (alpha * v - alpha_slope * x) / turn

  def from_data(self, x: Array, x0: Array, tau: Array) -> Array:
    """eps = (x - alpha x0) / sigma."""
    return (x - spread(self.alpha(tau), x) * x0) / self._divisor(self.sigma(tau), x)

  def from_noise(self, x: Array, eps: Array, tau: Array) -> Array:
    """x0 = (x - sigma eps) / alpha."""
    return (x - spread(self.sigma(tau), x) * eps) / self._divisor(self.alpha(tau), x)

  def convert(self, out: Array, source: Kind, target: Kind, x: Array, tau: Array) -> Array:
    """What is known of x as `source` -> the same as `target`; the score is grad log p(x_tau) = -eps / sigma."""
    if source == target:
      return out
    if source == "score":
      out, source = -spread(self.sigma(tau), x) * out, "noise"
    if source == "velocity":
      x0, eps = self.from_velocity(x, out, tau)
    elif source == "data":
      x0, eps = out, self.from_data(x, out, tau)
    else:
      x0, eps = self.from_noise(x, out, tau), out
    if target == "score":
      return -eps / self._divisor(self.sigma(tau), x)
    return {"data": x0, "noise": eps}[target] if target != "velocity" else self.velocity(x0, eps, tau)

  def unit(self, kind: Kind, tau: Array) -> Array:
    """[] or [B]: by how much an error in the data, with x fixed, is larger as an error in `kind`."""
    xp = library(tau)
    alpha, sigma = xp.maximum(self.alpha(tau), self.floor), xp.maximum(self.sigma(tau), self.floor)
    if kind == "velocity":  # sigma' alpha / sigma - alpha'
      return self.turn(tau) / sigma
    return {"data": alpha * 0 + 1, "noise": alpha / sigma, "score": alpha / sigma**2}[kind]

  def _divisor(self, value: Array, x: Array) -> Array:
    return jnp.maximum(spread(value, x), self.floor)
