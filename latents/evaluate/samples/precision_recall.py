"""Precision and recall of generated samples (Kynkaanniemi et al. 2019, arXiv:1904.06991)."""

import dataclasses

import numpy as np

from latents.errors import TooFew
from latents.evaluate.samples.base import Examples, Features, Measured, SampleMetric, level
from latents.evaluate.samples.features import EfficientNetFeatures

_ROWS = 2048  # distances are computed in blocks of so many rows, to bound the memory


def precision_recall(real: np.ndarray, fake: np.ndarray, k: int = 3) -> tuple[float, float]:
  """Features real [N,F], fake [M,F] -> (precision, recall), each in [0,1], float64 distances.

  Equation 1: a point lies in a set's manifold if it is within the distance from one of the set's points
  to that point's k-th nearest neighbour. Precision: share of fakes in the real manifold; recall: the
  reverse. Depends on N: compare equal N only. Raises TooFew for k samples or fewer.
  """
  real, fake = np.asarray(real, np.float64), np.asarray(fake, np.float64)
  if min(len(real), len(fake)) <= k:
    raise TooFew(f"precision and recall with k={k} need more than {k} samples a side")
  return _covered(fake, real, k), _covered(real, fake, k)


def _covered(points: np.ndarray, centres: np.ndarray, k: int) -> float:
  radii = np.concatenate(
    # the 0-th neighbour of a centre is itself
    [np.partition(_distances(part, centres), k, axis=1)[:, k] for part in _blocks(centres)]
  )
  hits = [(_distances(part, centres) <= radii).any(1) for part in _blocks(points)]
  return float(np.concatenate(hits).mean())


def _blocks(x: np.ndarray) -> list[np.ndarray]:
  return [x[i : i + _ROWS] for i in range(0, len(x), _ROWS)]


def _distances(a: np.ndarray, b: np.ndarray) -> np.ndarray:
  """Squared distances [M,N]. A point lies 1e-13 from itself rather than 0, which changes no rank."""
  square = (a**2).sum(1)[:, None] + (b**2).sum(1) - 2 * a @ b.T
  return np.maximum(square, 0.0)


@dataclasses.dataclass(frozen=True)
class PrecisionRecall(SampleMetric):
  """{"precision_NAME", "recall_NAME"}: `precision_recall` on the features, with the k-th neighbour, of as many
  samples as real examples."""

  features: Features = EfficientNetFeatures()
  k: int = 3

  def compare(self, real: Examples, fake: Examples, train: Examples | None) -> dict[str, Measured]:
    """See `SampleMetric`; features [N,...] are flattened."""
    a, b = (side.x.reshape(len(side.x), -1) for side in level(real, fake))
    precision, recall = precision_recall(a, b, k=self.k)
    note, key = self.features.against(real, fake, len(a)), self.features.key
    return {key("precision"): Measured(precision, note), key("recall"): Measured(recall, note)}
