"""Classifier-free guidance (Ho & Salimans 2022, arXiv:2207.12598) in an interval of times."""

import itertools
from collections.abc import Callable

import numpy as np

from latents.diffusion.samplers import Velocity
from latents.types import Array


def guide(unconditional: Array, conditional: Array, scale: float) -> Array:
  """u + scale (c - u), on all channels: 1 = conditional, 0 = unconditional."""
  return unconditional + scale * (conditional - unconditional)


def segments(times: np.ndarray, interval: tuple[float, float]) -> list[tuple[np.ndarray, bool]]:
  """Cuts a grid [n+1] into runs of steps: (times of the run, whether it is guided), in order.

  A step is guided where the time at which it starts lies in [lo,hi] (Kynkaanniemi et al. 2024, arXiv:2404.07724).
  The grid is known when the program is traced, so the runs outside cost half the evaluations.
  """
  lo, hi = interval
  inside = (times[:-1] >= lo) & (times[:-1] <= hi)
  cuts = [0, *(np.flatnonzero(np.diff(inside.astype(int))) + 1).tolist(), len(inside)]
  return [(times[a : b + 1], bool(inside[a])) for a, b in itertools.pairwise(cuts)]


def solve(
  sampler: Callable[[Velocity, Array, np.ndarray], Array],
  conditional: Velocity,
  guided: Velocity,
  x: Array,
  times: np.ndarray,
  interval: tuple[float, float] = (0.0, 1.0),
) -> Array:
  """Noise x [B,...] at times[0] -> data at times[-1]: `guided` inside the interval, `conditional` outside."""
  for part, inside in segments(times, interval):
    x = sampler(guided if inside else conditional, x, part)
  return x
