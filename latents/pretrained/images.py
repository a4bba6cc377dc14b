"""Signals as the RGB images that ImageNet networks expect."""

import jax
import jax.numpy as jnp

from latents.errors import UserError
from latents.types import Array


def rgb(x: Array) -> Array:
  """[B,H,W,C] or [B,T,H,W,C] with C = 1 or 3 -> [B(*T),H,W,3]: frames become images, grey is repeated.

  Raises UserError for signals that are no images (audio, other channel counts).
  """
  if x.ndim not in (4, 5) or x.shape[-1] not in (1, 3):
    raise UserError(f"an image network reads images or video of 1 or 3 channels, not {tuple(x.shape[1:])}")
  x = x.reshape(-1, *x.shape[-3:])
  return jnp.repeat(x, 3, -1) if x.shape[-1] == 1 else x


def enlarge(x: Array, side: int) -> Array:
  """[B,H,W,C] -> the same, scaled up bilinearly (half-pixel centres) so that min(H,W) >= side."""
  small = min(x.shape[1:3])
  if small >= side:
    return x
  size = [round(n * side / small) for n in x.shape[1:3]]
  return jax.image.resize(x, (x.shape[0], *size, x.shape[3]), "bilinear", antialias=False)
