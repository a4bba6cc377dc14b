"""The Haar wavelet transform, orthonormal, on any number of axes (Haar 1910; Mallat 1989)."""

import jax.numpy as jnp

from latents.errors import UserError
from latents.types import Array


def haar(x: Array) -> Array:
  """[B,*S,C], n signal axes of even length -> bands [2^n,B,*S/2,C] float32.

  Along each axis low = (a + b) / sqrt 2 and high = (a - b) / sqrt 2 of neighbours a, b. The number of a band has a bit
  an axis, the first axis the highest, 1 = high; band 0 is low along all. Lengths are kept: sum bands^2 = sum x^2.
  """
  axes = x.shape[1:-1]
  if any(n % 2 for n in axes):
    raise UserError(f"the Haar transform halves every axis, but the signal's axes are {'x'.join(map(str, axes))}")
  bands = x.astype(jnp.float32)[None]
  for axis in range(2, 2 + len(axes)):
    pairs = bands.reshape(*bands.shape[:axis], -1, 2, *bands.shape[axis + 1 :])
    a, b = jnp.moveaxis(pairs, axis + 1, 0)
    bands = (jnp.stack([a + b, a - b], 1) * 0.5**0.5).reshape(-1, *a.shape[1:])
  return bands


def unhaar(bands: Array) -> Array:
  """bands [2^n,B,*s,C] -> [B,*2s,C] float32: the inverse of `haar`."""
  for axis in reversed(range(2, bands.ndim - 1)):
    low, high = jnp.moveaxis(bands.astype(jnp.float32).reshape(-1, 2, *bands.shape[1:]), 1, 0)
    pairs = jnp.stack([low + high, low - high], axis + 1) * 0.5**0.5
    bands = pairs.reshape(*low.shape[:axis], -1, *low.shape[axis + 1 :])
  return bands[0]
