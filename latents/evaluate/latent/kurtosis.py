"""How far the numbers of a latent are from Gaussian: their fourth moment."""

import dataclasses

import numpy as np

from latents.evaluate.latent.moments import TokenMetric
from latents.types import Array


@dataclasses.dataclass(frozen=True)
class Kurtosis(TokenMetric):
  """{"excess_kurtosis": E[(z - mean)^4] / Var[z]^2 - 3, the mean over channels}; 0 for a Gaussian, -2 for a fair coin,
  large where a few numbers are far out. Channels that do not vary are left out; nan if none does."""

  keys = ("excess_kurtosis",)

  def sums(self, tokens: Array) -> dict[str, Array]:
    """Four powers; z is normalised, so that they are of one size."""
    return {"first": tokens, "second": tokens**2, "third": tokens**3, "fourth": tokens**4}

  def of(self, means: dict[str, np.ndarray]) -> dict[str, float | list[float]]:
    """Central moments from the raw ones."""
    m, second, third, fourth = (means[name] for name in ("first", "second", "third", "fourth"))
    variance = second - m**2
    varies = variance > 1e-9 * np.maximum(second, 1e-30)
    if not varies.any():
      return {"excess_kurtosis": float("nan")}
    central = fourth - 4 * m * third + 6 * m**2 * second - 3 * m**4
    return {"excess_kurtosis": float((central[varies] / variance[varies] ** 2 - 3).mean())}
