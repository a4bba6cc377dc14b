"""Averages of the parameters, kept beside the one that every stage has."""

import dataclasses

import jax.numpy as jnp

from latents.types import Array


@dataclasses.dataclass(frozen=True)
class Average:
  """average <- k average + (1 - k) parameters, k = min(rate, (1 + step) / (10 + step)): no bias to the first steps."""

  rate: float = 0.999

  def keep(self, step: Array) -> Array:
    """The share k in [0,1] that stays at an update; step [] int: updates before it."""
    return jnp.minimum(self.rate, (1.0 + step) / (10.0 + step))


@dataclasses.dataclass(frozen=True)
class PowerAverage(Average):
  """The power-function average of EDM2 (Karras et al. 2024, arXiv:2312.02696, equation 127): after t updates
  k = (1 - 1/t)^(gamma + 1), so that parameters weigh as t^gamma, whatever the length of the run. The first update
  replaces what was there. gamma: 6.94 is a profile of relative width 0.1, 16.97 one of 0.05. `rate` is not read.
  """

  gamma: float = 6.94

  def keep(self, step: Array) -> Array:
    """(1 - 1 / (step + 1))^(gamma + 1)."""
    return (1.0 - 1.0 / (step + 1.0)) ** (self.gamma + 1.0)
