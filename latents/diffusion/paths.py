"""The linear path between data and noise, and the conversions between its parametrisations.

Time tau in [0,1]: 0 = data, 1 = noise (flow matching, Lipman et al. 2023, arXiv:2210.02747; rectified flow, Liu
et al. 2023, arXiv:2209.03003). x_tau = (1 - tau) x0 + tau eps, velocity v = d x_tau / d tau = eps - x0.
`tau` is [] or [B] everywhere; x, x0, eps and v are [B,...].
"""

import jax.numpy as jnp

from latents.types import Array


def spread(tau: Array, x: Array) -> Array:
  """tau [] or [B] -> [B,1,...] of x's rank, so that it multiplies x."""
  tau = jnp.asarray(tau, x.dtype)
  return tau.reshape(tau.shape + (1,) * (x.ndim - 1)) if tau.ndim else tau


def mix(x0: Array, eps: Array, tau: Array) -> Array:
  """x_tau = (1 - tau) x0 + tau eps."""
  tau = spread(tau, x0)
  return (1 - tau) * x0 + tau * eps


def velocity(x0: Array, eps: Array) -> Array:
  """v = eps - x0."""
  return eps - x0


def x0_from_velocity(x: Array, v: Array, tau: Array) -> Array:
  """x0 = x - tau v."""
  return x - spread(tau, x) * v


def eps_from_velocity(x: Array, v: Array, tau: Array) -> Array:
  """eps = x + (1 - tau) v."""
  return x + (1 - spread(tau, x)) * v


def velocity_from_x0(x: Array, x0: Array, tau: Array) -> Array:
  """v = (x - x0) / tau; tau > 0."""
  return (x - x0) / spread(tau, x)


def velocity_from_eps(x: Array, eps: Array, tau: Array) -> Array:
  """v = (eps - x) / (1 - tau); tau < 1."""
  return (eps - x) / (1 - spread(tau, x))


def score_from_velocity(x: Array, v: Array, tau: Array) -> Array:
  """grad log p(x_tau) = -eps / tau; tau > 0."""
  return -eps_from_velocity(x, v, tau) / spread(tau, x)


def log_snr(tau: Array) -> Array:
  """lambda = log((1 - tau)^2 / tau^2)."""
  return 2 * (jnp.log1p(-tau) - jnp.log(tau))
