"""Frechet distance between Gaussians that are fitted to features (Heusel et al. 2017, arXiv:1706.08500)."""

import dataclasses

import numpy as np

from latents.errors import TooFew
from latents.evaluate.samples.base import Examples, Features, Measured, SampleMetric, level
from latents.evaluate.samples.features import EfficientNetFeatures


@dataclasses.dataclass(frozen=True)
class Moments:
  """Count n, mean [F] and scatter [F,F] (sum of outer products around the mean) of features, float64."""

  n: int
  mean: np.ndarray
  scatter: np.ndarray

  @classmethod
  def of(cls, features: np.ndarray) -> "Moments":
    """features [N,F] -> Moments, around their own mean, so that large offsets cost no digits."""
    features = np.asarray(features, np.float64)
    mean = features.mean(0)
    centred = features - mean
    return cls(len(features), mean, centred.T @ centred)

  def __add__(self, other: "Moments") -> "Moments":
    """Moments of both sets together (Chan et al. 1979): shards and hosts add up."""
    n = self.n + other.n
    gap = other.mean - self.mean
    scatter = self.scatter + other.scatter + np.outer(gap, gap) * (self.n * other.n / n)
    return Moments(n, self.mean + gap * (other.n / n), scatter)

  def covariance(self) -> np.ndarray:
    """[F,F], unbiased (n - 1). Raises TooFew for fewer than 2 samples."""
    if self.n < 2:
      raise TooFew(f"a covariance needs at least 2 samples, got {self.n}")
    return self.scatter / (self.n - 1)


def frechet(a: Moments, b: Moments) -> float:
  """|mu_a - mu_b|^2 + tr(S_a + S_b - 2 (S_a S_b)^(1/2)), >= 0.

  The trace of the root is the sum of the roots of the eigenvalues of S_a^(1/2) S_b S_a^(1/2): symmetric,
  so nothing turns complex, and fewer samples than features are no trouble. Biased by O(1/N): only values
  of equal N compare.
  """
  cov_a, cov_b = a.covariance(), b.covariance()
  values, vectors = np.linalg.eigh(cov_a)
  root = (vectors * np.sqrt(np.clip(values, 0, None))) @ vectors.T
  cross = np.sqrt(np.clip(np.linalg.eigvalsh(root @ cov_b @ root), 0, None)).sum()
  gap = a.mean - b.mean
  return float(max(gap @ gap + np.trace(cov_a) + np.trace(cov_b) - 2 * cross, 0.0))


@dataclasses.dataclass(frozen=True)
class Frechet(SampleMetric):
  """{"frechet_NAME"}: `frechet` of the features, named after them, of as many samples as real examples. Not FID, which
  the Inception network defines."""

  features: Features = EfficientNetFeatures()

  def compare(self, real: Examples, fake: Examples, train: Examples | None) -> dict[str, Measured]:
    """See `SampleMetric`; features [N,...] are flattened."""
    a, b = (Moments.of(side.x.reshape(len(side.x), -1)) for side in level(real, fake))
    return {self.features.key("frechet"): Measured(frechet(a, b), self.features.against(real, fake, a.n))}
