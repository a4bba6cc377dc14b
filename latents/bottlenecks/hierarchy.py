"""Codes on several grids, coarse to fine (VQ-VAE-2: Razavi, van den Oord, Vinyals 2019, arXiv:1906.00446)."""

import math

import flax.linen as nn
import jax.numpy as jnp

from latents.bottlenecks.base import Bottleneck, Discrete
from latents.errors import UserError
from latents.nn.conv import Conv, nearest
from latents.types import Array, Latent, later


class Hierarchy(Discrete):
  """h [B,*s,E] -> z [B,*s,Dt+Db], codes [B,N]: those of `top` on a coarser grid, then those of `bottom` on *s.

  Algorithm 1: the top is the quantised down(h), and the bottom is quantised given it:
    z_t = top(down(h)),   z_b = bottom([back(z_t), h]),   z = [z_t repeated to *s, z_b],
  so that what the top says the bottom need not say. `down` is an encoder, `back` a decoder whose channels come beside
  h. `top` may be a Hierarchy itself (the paper's three grids for 1024 px).

  up: z_t comes to *s by a transposed convolution of 4 taps and stride 2 to so many channels Dt, as in the public code
  (rosinality's: as many as z_t has); 0 = it is repeated, and the decoder's first convolution does the rest.
  grid: *s, by which a sequence is taken apart again; h of another grid is a UserError. top, bottom: one code a place.
  terms: those of both, summed by name. logs: those of both, "top_..." and "bottom_...".
  variants: "top alone", z with z_b at 0, beside the whole.
  """

  down: nn.Module
  top: Bottleneck
  back: nn.Module
  bottom: Bottleneck
  grid: tuple[int, ...]
  up: int = later(0)

  def setup(self) -> None:
    """Makes the transposed convolution, if there is one."""
    if self.up:
      self.upsample = Conv(self.up, 4, double=True)

  @property
  def vocab(self) -> tuple[int, ...]:
    """One number of codes a grid."""
    parts = (self.top.vocab, self.bottom.vocab)
    return tuple(v for part in parts for v in (part if isinstance(part, tuple) else (part or 0,)))

  def layout(self, shape: tuple[int, ...]) -> tuple[tuple[int, ...], ...]:
    """*s -> the grids of the top, then *s."""
    return (*self.top.layout(self._coarse(tuple(shape))), tuple(shape))

  def __call__(self, h: Array, *, train: bool) -> Latent:
    """[B,*s,E] -> Latent."""
    if h.shape[1:-1] != tuple(self.grid):
      raise UserError(f"Hierarchy is declared for a grid of {tuple(self.grid)}, but the features are {h.shape[1:-1]}")
    top = self.top(self.down(h, train=train), train=train)
    told = self.back(top, h, train=train).x
    if told.shape[1:-1] != h.shape[1:-1]:
      raise UserError(f"`back` brings the top to a grid of {told.shape[1:-1]}, but the features are {h.shape[1:-1]}")
    bottom = self.bottom(jnp.concatenate([told, h.astype(jnp.float32)], -1), train=train)
    if top.codes is None or bottom.codes is None or bottom.codes.ndim != h.ndim - 1:
      raise UserError("Hierarchy needs discrete parts that give one code a position")
    codes = jnp.concatenate([part.codes.reshape(len(h), -1) for part in (top, bottom)], 1)
    names = {*top.terms, *bottom.terms}
    terms = {name: top.terms.get(name, 0.0) + bottom.terms.get(name, 0.0) for name in sorted(names)}
    parts = (("top", top), ("bottom", bottom))
    logs = {f"{place}_{name}": value for place, part in parts for name, value in part.logs.items()}
    return Latent(z=self._joined(top.z, bottom.z), codes=codes, terms=terms, logs=logs)

  def embed(self, codes: Array) -> Array:
    """codes [B,N] -> z [B,*s,Dt+Db]."""
    return self._joined(*self._parts(codes))

  def variants(self, latent: Latent) -> dict[str, Latent]:
    """{"": whole, "top alone": without what the bottom's codes say}."""
    if latent.codes is None:
      return {"": latent}
    top, bottom = self._parts(latent.codes)
    return {"": latent, "top alone": latent.replace(z=self._joined(top, jnp.zeros_like(bottom)))}

  def _coarse(self, grid: tuple[int, ...]) -> tuple[int, ...]:
    return tuple(n // self.down.stride for n in grid)  # pyright: ignore[reportAttributeAccessIssue]

  def _parts(self, codes: Array) -> tuple[Array, Array]:
    """codes [B,N] -> (z_t on its own grid, z_b)."""
    grid = tuple(self.grid)
    sizes = [math.prod(g) for g in self.layout(grid)]
    if codes.ndim != 2 or codes.shape[1] != sum(sizes):
      raise UserError(f"grids of {self.layout(grid)} have {sum(sizes)} codes, got {codes.shape}")
    top, bottom = codes[:, : -sizes[-1]], codes[:, -sizes[-1] :]
    if len(sizes) == 2:
      top = top.reshape(len(codes), *self._coarse(grid))
    return self.top.embed(top), self.bottom.embed(bottom.reshape(len(codes), *grid))

  def _joined(self, top: Array, bottom: Array) -> Array:
    factor = bottom.shape[1] // top.shape[1]
    if self.up and factor != 2:
      raise UserError(f"Hierarchy with `up` doubles the top's grid, but the bottom's is {factor} times as fine")
    return jnp.concatenate([self.upsample(top) if self.up else nearest(top, factor), bottom], -1)
