"""How many tokens of a reconstructed text are right."""

import dataclasses
from typing import ClassVar

import jax.numpy as jnp

from latents.evaluate.paired.base import MeanMetric, Tree
from latents.types import Array


@dataclasses.dataclass(frozen=True)
class TokenAccuracy(MeanMetric):
  """The share of positions with the right token, 0 to 1; the mean over texts of one length is that over tokens."""

  kinds: ClassVar[tuple[str, ...]] = ("text",)

  @property
  def name(self) -> str:
    """The key of the result."""
    return "token_accuracy"

  def each(self, x: Array, x_hat: Array, aux: Tree) -> Array:
    """Numbers of tokens [B,T] twice -> [B]."""
    return jnp.mean(jnp.round(x) == jnp.round(x_hat), axis=tuple(range(1, x.ndim)), dtype=jnp.float32)
