"""What normalisation left over: means and deviations of the channels on held-out data."""

import dataclasses

import numpy as np

from latents.evaluate.latent.moments import TokenMetric
from latents.types import Array


@dataclasses.dataclass(frozen=True)
class Channels(TokenMetric):
  """{"channel_mean": largest |mean|, "channel_std": [least, most]} of normalised latents: 0 and 1, 1 if held-out data
  are as the training data were, and if the mode has the spread of the draws."""

  keys = ("channel_mean", "channel_std")

  def sums(self, tokens: Array) -> dict[str, Array]:
    """First and second powers."""
    return {"first": tokens, "second": tokens**2}

  def of(self, means: dict[str, np.ndarray]) -> dict[str, float | list[float]]:
    """See the class."""
    std = np.sqrt(np.maximum(means["second"] - means["first"] ** 2, 0.0))
    return {"channel_mean": float(np.abs(means["first"]).max()), "channel_std": [float(std.min()), float(std.max())]}
