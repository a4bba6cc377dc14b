"""Space into channels and back, and the two ways to change a number of channels without parameters (DC-AE)."""

import jax.numpy as jnp

from latents.errors import UserError
from latents.types import Array


def space_to_channel(x: Array, factor: int = 2) -> Array:
  """[B,*S,C] -> [B,*S/factor,C factor^n]: a channel's cell of pixels becomes neighbouring channels, rows first.

  The order (channel, row, column) is that of torch's pixel_unshuffle. UserError where factor divides an axis not.
  """
  axes = x.shape[1:-1]
  if any(n % factor for n in axes):
    raise UserError(f"{factor} does not divide every axis of a grid of {axes}")
  n, split = len(axes), [k for a in axes for k in (a // factor, factor)]
  x = x.reshape(x.shape[0], *split, x.shape[-1])
  x = x.transpose(0, *range(1, 2 * n, 2), 2 * n + 1, *range(2, 2 * n + 1, 2))
  return x.reshape(*x.shape[: n + 1], -1)


def channel_to_space(x: Array, factor: int = 2) -> Array:
  """[B,*S,C factor^n] -> [B,*S factor,C]: the inverse of `space_to_channel` (torch's pixel_shuffle)."""
  axes = x.shape[1:-1]
  n = len(axes)
  x = x.reshape(*x.shape[:-1], -1, *[factor] * n)
  x = x.transpose(0, *[i for a in range(n) for i in (1 + a, 2 + n + a)], n + 1)
  return x.reshape(x.shape[0], *[a * factor for a in axes], -1)


def average(x: Array, channels: int) -> Array:
  """[..,C] -> [..,channels]: means of neighbouring channels (Chen et al. 2024, arXiv:2410.10733, section 3.2).

  UserError where `channels` does not divide C.
  """
  if x.shape[-1] % channels:
    raise UserError(f"{x.shape[-1]} channels cannot be averaged in groups to {channels}")
  return x.reshape(*x.shape[:-1], channels, -1).mean(-1)


def duplicate(x: Array, channels: int) -> Array:
  """[..,C] -> [..,channels]: every channel as often as it takes, its copies side by side; `average` undoes it.

  UserError where C does not divide `channels`.
  """
  if channels % x.shape[-1]:
    raise UserError(f"{x.shape[-1]} channels cannot be repeated to {channels}")
  return jnp.repeat(x, channels // x.shape[-1], -1)
