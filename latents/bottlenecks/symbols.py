"""Samples of a raw signal as symbols: pixels of 256 values, or sound by the mu-law (with `identity` parts: TSR 1)."""

import math
from typing import Literal

import jax.numpy as jnp

from latents.bottlenecks.base import Discrete, check_codes, check_field, straight_through
from latents.errors import UserError
from latents.types import Array, Latent


class Symbols(Discrete):
  """[B,*s,C] in [-1,1] -> codes [B,*s,C] in [0,levels), or [B,*s] where C is 1; z [B,*s,C] is what they stand for.

  law: "linear": the nearest of `levels` values that divide [-1,1] evenly, exact for pixels of as many values. "mu": the
  same of sign(x) ln(1 + mu |x|) / ln(1 + mu), mu = levels - 1 (G.711; WaveNet: van den Oord et al. 2016,
  arXiv:1609.03499, eq. 4), which has more values near silence; silence is levels / 2. What is beyond [-1,1] is clipped.
  Digits at their 8 px have 17 values, which levels=17 tells apart: bits are of what the levels tell apart.
  channels: C. No parameters.
  """

  levels: int = 256
  law: Literal["linear", "mu"] = "linear"
  channels: int = 1

  def setup(self) -> None:
    """Looks at the fields."""
    check_field(self, "levels", 2)
    check_field(self, "channels", 1)

  @property
  def vocab(self) -> int:
    """The number of symbols."""
    return self.levels

  def __call__(self, h: Array, *, train: bool) -> Latent:
    """[B,*s,C] -> Latent; a gradient passes straight through."""
    latent = self.recall(self.store(h), train=train)
    return latent.replace(z=straight_through(h, latent.z))

  def store(self, h: Array) -> Array:
    """[B,*s,C] -> codes [B,*s,C] int32, [B,*s] where C is 1. UserError for another C than declared."""
    if h.shape[-1] != self.channels:
      raise UserError(f"Symbols of {self.channels} channels cannot read a signal of {h.shape[-1]}")
    x = jnp.clip(h.astype(jnp.float32), -1, 1)
    if self.law == "mu":
      x = jnp.sign(x) * jnp.log1p((self.levels - 1) * jnp.abs(x)) / math.log(self.levels)
    codes = jnp.floor((x + 1) / 2 * (self.levels - 1) + 0.5).astype(jnp.int32)
    return codes[..., 0] if self.channels == 1 else codes

  def embed(self, codes: Array) -> Array:
    """codes as `store` gives them -> z [B,*s,C] float32 in [-1,1]."""
    x = check_codes(codes, self.levels).astype(jnp.float32) / (self.levels - 1) * 2 - 1
    if self.law == "mu":
      x = jnp.sign(x) * jnp.expm1(jnp.abs(x) * math.log(self.levels)) / (self.levels - 1)
    return x[..., None] if self.channels == 1 else x
