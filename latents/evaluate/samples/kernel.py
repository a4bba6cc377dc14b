"""Kernel distance: unbiased squared MMD with a cubic kernel (Binkowski et al. 2018, arXiv:1801.01401)."""

import dataclasses

import numpy as np

from latents.errors import TooFew
from latents.evaluate.samples.base import Examples, Features, Measured, SampleMetric
from latents.evaluate.samples.features import EfficientNetFeatures


def mmd2(x: np.ndarray, y: np.ndarray) -> float:
  """x [M,F], y [N,F] -> unbiased MMD^2 with k(a, b) = (a.b / F + 1)^3; its mean is 0 for equal sources."""
  m, n = len(x), len(y)
  xx, yy, xy = _kernel(x, x), _kernel(y, y), _kernel(x, y)
  within = (xx.sum() - np.trace(xx)) / (m * (m - 1)) + (yy.sum() - np.trace(yy)) / (n * (n - 1))
  return float(within - 2 * xy.mean())


def kernel_distance(
  x: np.ndarray, y: np.ndarray, *, subsets: int = 100, size: int = 1000, seed: int = 0
) -> tuple[float, float]:
  """Mean and standard deviation of `mmd2` over random subsets of x [M,F] and y [N,F], in float64.

  size: samples in a subset. Sets no larger than that are taken whole, once, and the deviation is 0.
  The choice for small sets: unlike the Frechet distance it has no bias in N. It may be below 0.
  Raises TooFew for fewer than 2 samples.
  """
  x, y = np.asarray(x, np.float64), np.asarray(y, np.float64)
  if min(len(x), len(y)) < 2:
    raise TooFew(f"the kernel distance needs at least 2 samples a side, got {len(x)} and {len(y)}")
  if max(len(x), len(y)) <= size:
    return mmd2(x, y), 0.0
  rng = np.random.default_rng(seed)
  values = []
  for _ in range(subsets):
    i = rng.choice(len(x), min(size, len(x)), replace=False)
    j = rng.choice(len(y), min(size, len(y)), replace=False)
    values.append(mmd2(x[i], y[j]))
  return float(np.mean(values)), float(np.std(values))


def _kernel(a: np.ndarray, b: np.ndarray) -> np.ndarray:
  return (a @ b.T / a.shape[1] + 1.0) ** 3


@dataclasses.dataclass(frozen=True)
class KernelDistance(SampleMetric):
  """{"kernel_NAME", "kernel_std_NAME"}: `kernel_distance` on the features, and its deviation over subsets. Not KID,
  which is defined by the Inception network."""

  features: Features = EfficientNetFeatures()
  subsets: int = 100
  size: int = 1000

  def compare(self, real: Examples, fake: Examples, train: Examples | None) -> dict[str, Measured]:
    """See `SampleMetric`; features [N,...] are flattened."""
    a, b = (side.x.reshape(len(side.x), -1) for side in (real, fake))
    mean, deviation = kernel_distance(a, b, subsets=self.subsets, size=self.size)
    note, key = self.features.against(real, fake), self.features.key
    return {key("kernel"): Measured(mean, note), key("kernel_std"): Measured(deviation, note)}
