"""Intervals over few repetitions: the percentile bootstrap (Efron 1979), the same at every call."""

import itertools
from collections.abc import Callable

import numpy as np

WHOLE = 5  # up to so many repetitions every resample is taken, n^n of them; beyond, RESAMPLES random ones
RESAMPLES = 10_000
LEAST = 2  # repetitions that an interval needs


def resamples(n: int) -> np.ndarray:
  """int [R,n]: rows of indices into n repetitions, drawn with replacement."""
  if n <= WHOLE:
    return np.array(list(itertools.product(range(n), repeat=n)), dtype=np.int64).reshape(-1, n)
  return np.random.default_rng(0).integers(0, n, (RESAMPLES, n))


def interval(n: int, statistic: Callable[[np.ndarray], float], level: float = 0.95) -> tuple[float, float] | None:
  """The central interval of a statistic over resampled repetitions; None for fewer than two.

  statistic: int [n] indices of repetitions -> a number. level: in (0,1).
  The interval of a mean is never wider than the values themselves: with three repetitions it is from the smallest to
  the largest of them, which holds the true median three times in four.
  """
  if n < LEAST:
    return None
  found = np.array([statistic(rows) for rows in resamples(n)])
  tail = (1 - level) / 2
  low, high = np.quantile(found, (tail, 1 - tail), method="inverted_cdf")
  return float(low), float(high)


def mean_interval(x: np.ndarray, level: float = 0.95) -> tuple[float, float] | None:
  """float [n] -> the interval of its mean."""
  return interval(len(x), lambda rows: float(x[rows].mean()), level)


def ranks(x: np.ndarray) -> np.ndarray:
  """float [n] -> ranks from 1, equal values sharing the mean of theirs."""
  return np.array([(x < v).sum() + ((x == v).sum() + 1) / 2 for v in x])


def spearman(x: np.ndarray, y: np.ndarray) -> float:
  """Rank correlation in [-1,1]: Pearson's of the ranks; 0 where one of them is constant."""
  a, b = ranks(x) - ranks(x).mean(), ranks(y) - ranks(y).mean()
  size = float(np.sqrt((a**2).sum() * (b**2).sum()))
  return float((a * b).sum()) / size if size else 0.0
