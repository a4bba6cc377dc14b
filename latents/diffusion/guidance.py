"""Classifier-free guidance (Ho & Salimans 2022, arXiv:2207.12598) in an interval of times."""

import numpy as np

from latents.types import Array


def guide(unconditional: Array, conditional: Array, scale: float) -> Array:
  """u + scale (c - u), on all channels: 1 = conditional, 0 = unconditional."""
  return unconditional + scale * (conditional - unconditional)


def inside(times: np.ndarray, interval: tuple[float, float]) -> np.ndarray:
  """[n+1] times -> [n] bool: the steps that are guided, those that start in [lo,hi] (Kynkaanniemi et al. 2024,
  arXiv:2404.07724). Known when the program is traced, so the steps outside cost half the evaluations."""
  lo, hi = interval
  return (times[:-1] >= lo) & (times[:-1] <= hi)
