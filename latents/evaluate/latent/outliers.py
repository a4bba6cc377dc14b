"""How many numbers of a latent lie far out."""

import dataclasses

import jax.numpy as jnp
import numpy as np

from latents.evaluate.latent.moments import TokenMetric
from latents.types import Array


@dataclasses.dataclass(frozen=True)
class Outliers(TokenMetric):
  """{"outliers": share of numbers of normalised latents beyond `beyond` deviations}; 6.3e-5 of a Gaussian's at 4."""

  beyond: float = 4.0
  keys = ("outliers",)

  def sums(self, tokens: Array) -> dict[str, Array]:
    """Which numbers are."""
    return {"outliers": (jnp.abs(tokens) > self.beyond).astype(jnp.float32)}

  def of(self, means: dict[str, np.ndarray]) -> dict[str, float | list[float]]:
    """The mean over channels."""
    return {"outliers": float(means["outliers"].mean())}
