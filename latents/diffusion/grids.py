"""Grids of times for samplers. Contract: a frozen dataclass, `__call__(steps, shift) -> [steps+1]` from 1 to 0."""

import dataclasses

import numpy as np

from latents.diffusion.times import shift as shift_time
from latents.errors import UserError


def grid(steps: int, shift: float = 1.0) -> np.ndarray:
  """[steps+1] float64 times from 1 to 0: evenly spaced, then shifted towards noise (`times.shift`)."""
  return shift_time(np.linspace(1.0, 0.0, steps + 1), shift)


@dataclasses.dataclass(frozen=True)
class Even:
  """`grid`. Without shift, and where its steps divide 1000, these are diffusers' "trailing" steps of DDPM's paths."""

  def __call__(self, steps: int, shift: float = 1.0) -> np.ndarray:
    """See the class."""
    return grid(steps, shift)


@dataclasses.dataclass(frozen=True)
class Early:
  """`steps` times, even from 1 to `last`, then 0, shifted as all: the last step, which REPA's sampler takes without
  noise (Yu et al. 2024, arXiv:2410.06940), is as long as it likes. UserError unless 0 < last < 1."""

  last: float = 0.04

  def __call__(self, steps: int, shift: float = 1.0) -> np.ndarray:
    """See the class."""
    if not 0 < self.last < 1:
      raise UserError(f"the last time before the data is in (0, 1), not {self.last}")
    return shift_time(np.concatenate([np.linspace(1.0, self.last, steps), [0.0]]), shift)


@dataclasses.dataclass(frozen=True)
class Karras:
  """EDM's noise levels: from `most` to `least`, even in sigma^(1/rho), then 0 (Karras et al. 2022, arXiv:2206.00364,
  eq. 5), as times of the path `Exploding(most)`.

  The shift of time is not applied. UserError unless 0 < least <= most and rho > 0.
  """

  rho: float = 7.0
  least: float = 0.002
  most: float = 80.0

  def __call__(self, steps: int, shift: float = 1.0) -> np.ndarray:
    """See the class."""
    del shift
    if not (0 < self.least <= self.most and self.rho > 0):
      raise UserError(f"noise falls from most to least above 0 with rho above 0, not as {self}")
    sigmas = np.linspace(self.most ** (1 / self.rho), self.least ** (1 / self.rho), steps) ** self.rho
    return np.concatenate([[1.0], sigmas[1:] / self.most, [0.0]])


@dataclasses.dataclass(frozen=True)
class Strided:
  """`steps` of the T steps of a chain, evenly from T to 1, then 0 (iDDPM, arXiv:2102.09672, section 4).

  The shift of time is not applied: a chain has its own times.
  """

  chain: int = 1000

  def __call__(self, steps: int, shift: float = 1.0) -> np.ndarray:
    """See the class. UserError for more steps than the chain has, or fewer than 2."""
    del shift
    if not 2 <= steps <= self.chain:
      raise UserError(f"a chain of {self.chain} steps is strided in 2 to {self.chain}, not {steps}")
    return np.concatenate([np.round(np.linspace(self.chain, 1, steps)) / self.chain, [0.0]])


Grid = Even | Early | Karras | Strided
