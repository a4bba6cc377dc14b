"""Whether samples are copies: distances to the nearest training example and to each other."""

import dataclasses
from typing import ClassVar

import numpy as np

from latents.data import choice
from latents.evaluate.samples.base import Examples, Features, Measured, SampleMetric
from latents.evaluate.samples.features import Signals


def nearest_distances(a: np.ndarray, b: np.ndarray | None = None) -> np.ndarray:
  """a [N,...], b [M,...] -> [N] root-mean-square distance to the nearest of b (or other of a)."""
  x = np.asarray(a, np.float64).reshape(len(a), -1)
  y = x if b is None else np.asarray(b, np.float64).reshape(len(b), -1)
  out = np.empty(len(x))
  for first in range(0, len(x), 256):
    part = x[first : first + 256]
    squares = (part**2).sum(1)[:, None] - 2 * part @ y.T + (y**2).sum(1)[None]
    if b is None:
      squares[np.arange(len(part)), first + np.arange(len(part))] = np.inf
    out[first : first + 256] = np.sqrt(np.maximum(squares.min(1), 0) / x.shape[1])
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
