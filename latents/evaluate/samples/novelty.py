"""Whether samples are copies: distances to the nearest training example and to each other."""

import dataclasses
from typing import ClassVar

import numpy as np

from latents.data import choice
from latents.evaluate.samples.base import Examples, Features, Measured, SampleMetric
from latents.evaluate.samples.features import Signals


def distances(a: np.ndarray, b: np.ndarray) -> np.ndarray:
  """a [N,...], b [M,...] -> [N,M] root-mean-square distances, float64."""
  x, y = (np.asarray(side, np.float64).reshape(len(side), -1) for side in (a, b))
  squares = (x**2).sum(1)[:, None] - 2 * x @ y.T + (y**2).sum(1)[None]
  return np.sqrt(np.maximum(squares, 0) / x.shape[1])


def nearest_distances(a: np.ndarray, b: np.ndarray | None = None) -> np.ndarray:
  """a [N,...], b [M,...] -> [N] root-mean-square distance to the nearest of b (or other of a)."""
  out = np.empty(len(a))
  for first in range(0, len(a), 256):
    found = distances(a[first : first + 256], a if b is None else b)
    if b is None:
      found[np.arange(len(found)), first + np.arange(len(found))] = np.inf
    out[first : first + 256] = found.min(1)
  return out


def novelty(train: np.ndarray, test: np.ndarray, samples: np.ndarray, on: str) -> dict[str, Measured]:
  """Signals [N,...] -> medians of nearest-neighbour distances, beside those of real held-out data.

  on: what the numbers are, for the protocol: pixels in [-1,1], bands of energy.
  Copies of the training set would be at 0 from it; a collapsed prior's samples at 0 from each other.
  Equal numbers are compared: the same fixed `choice` of n of the larger set.
  """
  n, sizes = min(len(test), len(samples)), f" a side (of {len(samples)} and {len(test)})"
  note = (
    f"median RMS distance of {on}, n={n}{sizes if len(samples) != len(test) else ''}, {len(train)} training examples"
  )
  test, samples = (np.asarray(side)[choice(len(side), n)] for side in (test, samples))
  values = {
    "sample_to_train": nearest_distances(samples, train),
    "heldout_to_train": nearest_distances(test, train),
    "sample_to_sample": nearest_distances(samples),
    "heldout_to_heldout": nearest_distances(test),
  }
  return {name: Measured(float(np.median(value)), note) for name, value in values.items()}


@dataclasses.dataclass(frozen=True)
class Novelty(SampleMetric):
  """{"sample_to_train", "heldout_to_train", "sample_to_sample", "heldout_to_heldout"}: `novelty` on the features."""

  features: Features = Signals()
  training: ClassVar[int] = 5000

  def compare(self, real: Examples, fake: Examples, train: Examples | None) -> dict[str, Measured]:
    """See `SampleMetric`."""
    assert train is not None
    found = novelty(train.x, real.x, fake.x, on=self.features.note)
    return {self.features.key(name): value for name, value in found.items()}
