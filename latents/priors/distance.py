"""Distances between two estimates of the data, of each example. Frozen dataclasses: mean squared error [B] -> [B]."""

import dataclasses

import jax.numpy as jnp

from latents.types import Array


@dataclasses.dataclass(frozen=True)
class Squared:
  """The mean squared error itself."""

  def __call__(self, error: Array) -> Array:
    """See the room."""
    return error


@dataclasses.dataclass(frozen=True)
class PseudoHuber:
  """sqrt(error + c^2) - c: iCT's (arXiv:2310.14189, section 3.3) over sqrt(d), of d numbers; theirs has c sqrt(d)."""

  c: float = 0.00054

  def __call__(self, error: Array) -> Array:
    """See the room."""
    return jnp.sqrt(error + self.c**2) - self.c
