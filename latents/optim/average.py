"""Averages of the parameters, kept beside the one that every stage has, and those that are made of them afterwards."""

import dataclasses
import math
from collections.abc import Sequence

import jax.numpy as jnp
import numpy as np

from latents.errors import UserError
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


def width(gamma: float) -> float:
  """The relative width of a power average: the deviation of its profile over the length of the run (eq. 126)."""
  return math.sqrt((gamma + 1) / ((gamma + 2) ** 2 * (gamma + 3)))


def gamma_of(width: float) -> float:
  """gamma of a relative width: 16.97 of 0.05, 6.94 of 0.1. UserError beyond (0, 0.288), gamma in (0, inf).

  The largest root of (gamma + 2)^2 (gamma + 3) = (gamma + 1) / width^2.
  """
  if not 0 < width < math.sqrt(1 / 12):
    raise UserError(f"the width of an average is {width}: it must be above 0 and below 0.2887, that of a plain mean")
  inverse = width**-2
  gamma = float(np.roots([1, 7, 16 - inverse, 12 - inverse]).real.max())
  value, slope = np.polyval([1, 7, 16 - inverse, 12 - inverse], gamma), 3 * gamma**2 + 14 * gamma + 16 - inverse
  return gamma - float(value) / slope  # one step of Newton's


def is_width(name: str) -> bool:
  """Whether the name of an average is the width of one that was made afterwards, as `latents average` writes it."""
  try:
    return f"{float(name):g}" == name and 0 < float(name) < math.sqrt(1 / 12)
  except ValueError:
    return False


def products(a: Sequence[tuple[float, float]], b: Sequence[tuple[float, float]]) -> np.ndarray:
  """[n] and [m] profiles (updates t, gamma) -> [n,m]: integrals of their products (appendix C.2, equation 151).

  A profile is (gamma + 1) tau^gamma / t^(gamma + 1) on [0,t]; the average gives the parameters of update i its
  integral from i - 1 to i, exactly.
  """
  (ta, ga), (tb, gb) = np.asarray(a, np.float64).T[:, :, None], np.asarray(b, np.float64).T[:, None]
  ratio = np.where(ta < tb, ta / tb, tb / ta) ** np.where(ta < tb, gb, ga)
  return (ga + 1) * (gb + 1) * ratio / ((ga + gb + 1) * np.maximum(ta, tb))


def combination(kept: Sequence[tuple[float, float]], wanted: tuple[float, float]) -> np.ndarray:
  """Shares of kept averages (updates t, gamma) that together are nearest to the wanted one, in the mean square over the
  run: post-hoc EMA of EDM2 (arXiv:2312.02696, appendix C.2, equation 150).

  The shares add up to 1, which the paper does not ask of them: its least squares miss that by a thousandth (8 snapshots
  of two widths), and all weights with it; with the condition the error is a tenth.
  """
  norms = np.sqrt(np.diag(products(kept, kept)))  # profiles of early snapshots are high and thin
  n = len(norms)
  matrix, right = np.zeros((n + 1, n + 1)), np.ones(n + 1)
  matrix[:n, :n] = products(kept, kept) / norms / norms[:, None]
  matrix[n, :n] = matrix[:n, n] = 1 / norms
  right[:n] = products(kept, [wanted])[:, 0] / norms
  return np.linalg.lstsq(matrix, right, rcond=1e-13)[0][:n] / norms
