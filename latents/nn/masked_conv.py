"""Convolutions that see what comes before: masked ones (PixelRNN: van den Oord et al. 2016, arXiv:1601.06759)."""

from typing import Literal

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np

from latents.nn.convolve import convolve
from latents.nn.sharding import constrain
from latents.types import Array

Mask = Literal["A", "B"]


class MaskedConv(nn.Module):
  """[B,H,W,C] -> [B,H,W,features]: rows above, its own row up to itself, and of itself the channels before.

  size: taps (rows, columns) of the whole kernel, odd; the rows below are not stored, nor, of one row, what comes
  after. groups: channels G of a pixel; feature k of any map belongs to channel k % G. mask: of the pixel itself
  "A" sees channels before its own, "B" its own too (section 3.4). parts: the features are so many maps side by side,
  each with its own features 0, 1, .. zero: the kernel starts at 0, else normal by the number of taps that are seen.
  Parameters: kernel [rows // 2 + 1, columns, C, features], bias.
  """

  features: int
  size: tuple[int, int]
  mask: Mask = "B"
  groups: int = 1
  parts: int = 1
  zero: bool = False
  dtype: str = "float32"

  @nn.compact
  def __call__(self, x: Array) -> Array:
    """See the class."""
    seen = self.seen(x.shape[-1])
    count = np.maximum(seen.sum((0, 1, 2)), 1)

    def start(key: Array, shape: tuple[int, ...]) -> Array:
      return jnp.zeros(shape) if self.zero else jax.random.normal(key, shape) / np.sqrt(count)

    kernel = self.param("kernel", start, seen.shape)
    bias = self.param("bias", nn.initializers.zeros, (self.features,))
    left = self.size[1] // 2
    padding = [(self.size[0] // 2, 0), (left, seen.shape[1] - 1 - left)]
    y = convolve(x.astype(self.dtype), (kernel * seen).astype(self.dtype), padding=padding)
    return constrain(y + bias.astype(self.dtype))

  def seen(self, channels: int) -> np.ndarray:
    """[rows,columns,channels,features] float32: 1 where a tap is seen."""
    rows, left = self.size[0] // 2 + 1, self.size[1] // 2
    columns = self.size[1] if rows > 1 else left + 1
    mask = np.ones((rows, columns, channels, self.features), np.float32)
    mask[-1, left + 1 :] = 0
    own = np.tile(np.arange(self.features // self.parts) % self.groups, self.parts)
    theirs = np.arange(channels)[:, None] % self.groups
    mask[-1, left] = theirs < own if self.mask == "A" else theirs <= own
    return mask


def down(x: Array) -> Array:
  """[B,H,W,C] -> same shape: every row stands where the next one was, zeros on top."""
  return jnp.pad(x[:, :-1], ((0, 0), (1, 0), (0, 0), (0, 0)))


def right(x: Array) -> Array:
  """[B,H,W,C] -> same shape: every column stands where the next one was, zeros on the left."""
  return jnp.pad(x[:, :, :-1], ((0, 0), (0, 0), (1, 0), (0, 0)))
