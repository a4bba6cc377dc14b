"""Finite scalar quantisation (Mentzer, Minnen, Agustsson, Tschannen 2023, arXiv:2309.15505)."""

import math

import jax
import jax.numpy as jnp
import numpy as np

from latents.bottlenecks.base import Discrete, check_codes, code_logs, enter, pointwise, straight_through
from latents.errors import UserError
from latents.types import Array, Latent, later

EPS = 1e-3  # the paper's 1 - eps; vector-quantize-pytorch >= 1.7 has 1 + eps: the codes differ only next to a border


def check_levels(levels: tuple[int, ...], least: int = 3) -> tuple[int, ...]:
  """The levels, or a UserError. FSQ refuses two levels: the paper's shift artanh(o/h) has no value there."""
  if not levels or min(levels) < least:
    raise UserError(f"every channel needs at least {least} levels, not {levels}")
  if math.prod(levels) >= 2**31:
    raise UserError(f"FSQ levels {levels} give {math.prod(levels)} codes, more than an int32 index holds")
  return levels


def bound(z: Array, levels: tuple[int, ...]) -> Array:
  """[...,d] -> [...,d]: section 3.1; integers after rounding run from -(L//2) to (L-1)//2; bound(0) = 0."""
  count = np.asarray(levels, np.float64)
  half = (count - 1) * (1 - EPS) / 2
  offset = np.where(count % 2 == 0, 0.5, 0.0)
  shift = np.arctanh(offset / half).astype(np.float32)
  return jnp.tanh(z + shift) * half.astype(np.float32) - offset.astype(np.float32)


def digits_to_index(digits: Array, levels: tuple[int, ...]) -> Array:
  """digits [...,d] int32, 0 <= digit < L -> index [...] int32; the first channel is the least significant."""
  basis = np.cumprod((1, *levels[:-1])).astype(np.int32)
  return (digits * basis).sum(-1, dtype=jnp.int32)


def index_to_digits(index: Array, levels: tuple[int, ...]) -> Array:
  """index [...] int32 -> digits [...,d] int32: the inverse of `digits_to_index`, in integers."""
  basis = np.cumprod((1, *levels[:-1])).astype(np.int32)
  return index[..., None] // basis % np.asarray(levels, np.int32)


def digits_to_value(digits: Array, levels: tuple[int, ...]) -> Array:
  """digits [...,d] int32 -> [...,d] float32 in [-1, 1], steps of 1 / (L//2); digit L//2 is 0."""
  half = np.asarray(levels) // 2
  return (digits - half.astype(np.int32)).astype(jnp.float32) * (1.0 / half).astype(np.float32)


def quantise(z: Array, levels: tuple[int, ...]) -> tuple[Array, Array]:
  """[...,d] -> digits [...,d] int32 and values [...,d], whose derivative is that of bound(z) / (L//2)."""
  half = np.asarray(levels) // 2
  b = bound(z, levels)
  digits = jnp.round(jax.lax.stop_gradient(b)).astype(jnp.int32) + half.astype(np.int32)
  return digits, straight_through(b * (1.0 / half).astype(np.float32), digits_to_value(digits, levels))


def nearest_digits(x: Array, levels: tuple[int, ...]) -> Array:
  """[...,d] in [-1,1] -> digits [...,d] int32 of the nearest of L levels evenly spaced in [-1,1], halves upwards."""
  steps = np.asarray(levels, np.float32) - 1
  return jnp.floor((x + 1) * (steps / 2) + 0.5).astype(jnp.int32)


def even_value(digits: Array, levels: tuple[int, ...], size: np.ndarray | float = 1.0) -> Array:
  """digits [...,d] int32 -> [...,d] float32: the level in [-1,1], times `size`."""
  steps = np.asarray(levels) - 1
  return (2 * digits - steps.astype(np.int32)).astype(jnp.float32) * (size / steps).astype(np.float32)


class FSQ(Discrete):
  """[B,*s,E] -> z [B,*s,d], codes [B,*s] in [0, prod(levels)): each of d = len(levels) channels is rounded.

  project: a 1x1 projection E -> d first; without it E must be d. No codebook and no losses.
  The paper's levels: 2^8 (8,6,5), 2^10 (8,5,5,5), 2^12 (7,5,5,5,5), 2^14 (8,8,8,6,5), 2^16 (8,8,8,5,5,5).
  symmetric: True = each channel is the nearest to tanh(h) of L levels evenly spaced in [-1,1], for even L too, which
  then has no level at 0 and may be 2 (Parker et al. 2024, arXiv:2411.19842, section 3.2). dz/dh = 1 - tanh^2(h).
  logs: usage and perplexity of the batch.
  """

  levels: tuple[int, ...] = (8, 5, 5, 5)
  project: bool = True
  symmetric: bool = later(False)

  @property
  def vocab(self) -> int:
    """The product of the levels."""
    return math.prod(check_levels(tuple(self.levels), least=2 if self.symmetric else 3))

  def setup(self) -> None:
    """Makes the projection."""
    if self.project:
      self.projection = pointwise(len(self.levels))

  def __call__(self, h: Array, *, train: bool) -> Latent:
    """[B,*s,E] -> Latent; the same for train True and False."""
    vocab, levels = self.vocab, tuple(self.levels)
    channels = enter(self, h, len(self.levels))
    if self.symmetric:
      x = jnp.tanh(channels)
      digits = nearest_digits(jax.lax.stop_gradient(x), levels)
      z = straight_through(x, even_value(digits, levels))
    else:
      digits, z = quantise(channels, levels)
    codes = digits_to_index(digits, levels)
    return Latent(z=z, codes=codes, logs=code_logs(codes, vocab))

  def embed(self, codes: Array) -> Array:
    """codes [B,*s] -> z [B,*s,d]."""
    levels = tuple(self.levels)
    digits = index_to_digits(check_codes(codes, self.vocab), levels)
    return (even_value if self.symmetric else digits_to_value)(digits, levels)
