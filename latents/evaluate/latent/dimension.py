"""How many directions the tokens of a latent use."""

import dataclasses

import numpy as np

from latents.evaluate.latent.moments import TokenMetric
from latents.types import Array


@dataclasses.dataclass(frozen=True)
class EffectiveDimension(TokenMetric):
  """{"effective_channels": tr(C)^2 / tr(C^2)}, the participation ratio of the covariance C [D,D] of tokens, in [1,D].

  k for k uncorrelated channels of one variance among dead ones, 1 for channels that all say the same. z is normalised,
  so that no channel counts more for its scale.
  """

  keys = ("effective_channels",)

  def sums(self, tokens: Array) -> dict[str, Array]:
    """First powers and products."""
    return {"first": tokens, "products": tokens[..., :, None] * tokens[..., None, :]}

  def of(self, means: dict[str, np.ndarray]) -> dict[str, float | list[float]]:
    """tr(C^2) is the sum of the squares of C; nan where nothing varies."""
    c = means["products"] - np.outer(means["first"], means["first"])
    squares = (c**2).sum()
    return {"effective_channels": float(np.trace(c) ** 2 / squares) if squares else float("nan")}
