"""Grids of times for samplers. Contract: a frozen dataclass, `__call__(steps, shift) -> [steps+1]` from 1 to 0."""

import dataclasses

import numpy as np

from latents.diffusion.paths.betas import Betas
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


@dataclasses.dataclass(frozen=True)
class Aligned:
  """The times at which `path` is as noisy as a short chain with `betas` of its own, from that chain's end to 0.

  alpha(time)^2 = prod (1 - beta) exactly, so that `DDPM` takes the short chain's steps, and the network is told where
  on its own chain it is, between two steps (DiffWave, arXiv:2009.09761, appendix B, which draws a straight line in
  alpha there, not in log alpha: less than 0.004 steps away for betas up to 0.05; WaveGrad, arXiv:2009.00713, is told
  alpha itself). The first time is below 1 where the short chain ends with less noise than the path. With another number
  of steps than `betas` has: `Strided`. UserError for betas that are none, and for a chain that ends with more noise
  than the path.
  """

  path: Betas = Betas()
  betas: tuple[float, ...] = (1e-4, 1e-3, 1e-2, 0.05, 0.2, 0.5)

  def __call__(self, steps: int, shift: float = 1.0) -> np.ndarray:
    """See the class."""
    if steps != len(self.betas):
      return Strided(self.path.steps)(steps, shift)
    if not all(0 < beta < 1 for beta in self.betas):
      raise UserError(f"the betas of a chain lie within (0,1), not {self.betas}")
    log_bar = np.cumsum(np.log1p(-np.asarray(self.betas)))
    ends = np.exp(log_bar[-1] / 2), self.path.alpha(np.array(1.0))
    if ends[0] < ends[1]:
      raise UserError(
        f"a chain that ends at alpha = {ends[0]:.3g} has more noise than its path, which ends at {ends[1]:.3g}"
      )
    times = self.path.time(log_bar - np.log(-np.expm1(log_bar)))
    return np.concatenate([times[::-1], [0.0]])


Grid = Even | Early | Karras | Strided | Aligned
