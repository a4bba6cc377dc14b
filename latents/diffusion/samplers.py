"""Solvers of the probability-flow ODE dx/dtau = v(x, tau), from tau = 1 (noise) to 0 (data).

A velocity is a function (x [B,...], tau []) -> [B,...]. A solver walks along a grid of falling times under
`lax.scan`, so its program has one copy of the velocity (Heun: two) for any number of steps.
"""

import dataclasses
from collections.abc import Callable

import jax
import jax.numpy as jnp
import numpy as np

from latents.diffusion.times import shift as shift_time
from latents.errors import UserError
from latents.types import Array

Velocity = Callable[[Array, Array], Array]


def grid(steps: int, shift: float = 1.0) -> np.ndarray:
  """[steps+1] float64 times from 1 to 0: evenly spaced, then shifted towards noise (`times.shift`)."""
  return shift_time(np.linspace(1.0, 0.0, steps + 1), shift)


def check_steps(steps: int) -> None:
  """Raises UserError for fewer than one step."""
  if steps < 1:
    raise UserError(f"a sampler takes at least 1 step, not {steps}")


@dataclasses.dataclass(frozen=True)
class Euler:
  """x + (tau' - tau) v(x, tau): order 1, one evaluation a step."""

  steps: int = 50

  def __post_init__(self) -> None:
    check_steps(self.steps)

  def __call__(self, velocity: Velocity, x: Array, times: np.ndarray) -> Array:
    """x at times[0] -> x at times[-1]; times [n+1] falling."""

    def step(x: Array, pair: tuple[Array, Array]) -> tuple[Array, None]:
      now, then = pair
      return x + (then - now) * velocity(x, now), None

    grid = jnp.asarray(times, x.dtype)
    return jax.lax.scan(step, x, (grid[:-1], grid[1:]))[0]


@dataclasses.dataclass(frozen=True)
class Heun:
  """Trapezoid with an Euler predictor: order 2, two evaluations a step.

  A step that ends at tau = 0 is Euler's: there networks are hardly trained (Karras et al. 2022,
  arXiv:2206.00364, algorithm 1). The order stays 2.
  """

  steps: int = 25

  def __post_init__(self) -> None:
    check_steps(self.steps)

  def __call__(self, velocity: Velocity, x: Array, times: np.ndarray) -> Array:
    """x at times[0] -> x at times[-1]; times [n+1] falling."""

    def step(x: Array, pair: tuple[Array, Array]) -> tuple[Array, None]:
      now, then = pair
      here = velocity(x, now)
      there = velocity(x + (then - now) * here, then)
      return x + (then - now) * (here + there) / 2, None

    to_data = float(times[-1]) == 0.0
    cut = len(times) - 1 if to_data else len(times)
    first = jnp.asarray(times[:cut], x.dtype)
    if cut > 1:
      x = jax.lax.scan(step, x, (first[:-1], first[1:]))[0]
    return Euler()(velocity, x, times[-2:]) if to_data else x
