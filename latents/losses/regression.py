"""Distances between pixels or samples, in all-mean form.

Papers that sum over the elements and divide by the batch (LDM) are `C * prod(S)` times larger.
"""

import dataclasses

import jax.numpy as jnp

from latents.losses.base import Reconstruction, Tree
from latents.types import Array


@dataclasses.dataclass(frozen=True)
class L1(Reconstruction):
  """mean |x - x_hat|; optimal prediction: the median."""

  def __call__(self, x: Array, x_hat: Array, *, aux: Tree = None) -> Array:
    """[B,*S,C] twice -> []."""
    return jnp.abs(x.astype(jnp.float32) - x_hat.astype(jnp.float32)).mean()


@dataclasses.dataclass(frozen=True)
class L2(Reconstruction):
  """mean (x - x_hat)^2; optimal prediction: the mean."""

  def __call__(self, x: Array, x_hat: Array, *, aux: Tree = None) -> Array:
    """[B,*S,C] twice -> []."""
    return jnp.square(x.astype(jnp.float32) - x_hat.astype(jnp.float32)).mean()
