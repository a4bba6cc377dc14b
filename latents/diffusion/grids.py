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
