"""A picture as token maps from one token to the whole grid (VAR: Tian et al. 2024, arXiv:2404.02905, algorithm 1)."""

import math
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from latents.bottlenecks.base import Discrete, check_field, code_logs
from latents.bottlenecks.nearest import through
from latents.bottlenecks.vq import VQ
from latents.errors import UserError
from latents.nn.conv import Conv
from latents.nn.resize import area, bicubic, resized
from latents.types import Array, Latent, Terms

SHARE = 0.5  # of the convolution in phi


class MultiScaleVQ(Discrete):
  """h [B,*s,D] -> z [B,*s,D], codes [B,N]: those of `scales` grids, coarse to fine, all rows of one codebook.

  Algorithms 1 and 2, with z_0 = 0:
    codes_k = the rows nearest to area_k(h - z_(k-1)),   z_k = z_(k-1) + phi_k(up(rows of codes_k)),   z = z_K,
  area_k the means over the cells of grid k, up the bicubic way to *s, phi(x) = x/2 + conv(x)/2 with 3 taps an axis.
  An encoder gives D channels itself: nothing is projected here (the code has a convolution before and after).
  stage: the codebook, as declared alone, with project=False. Its `gradient` is that of z to h, once at the end.
  scales: the grids; the last is *s. share: so many phis; scale k of K has the one whose place in [0,1] is nearest to
  k / (K - 1), as in the code; 0 = one a scale. UserError for h of another grid or width.
  terms: the stage's, of h and each z_k, as means over the scales. logs: usage, perplexity.
  """

  stage: VQ
  scales: tuple[tuple[int, ...], ...]
  share: int = 4

  def setup(self) -> None:
    """Makes the phis."""
    check_field(self, "share")
    if self.stage.project:
      raise UserError("the scales of MultiScaleVQ look up what is left of h itself: a stage with project=False")
    self.phis = [Conv(self.stage.dim) for _ in range(max(phi_of(len(self.scales), self.share)) + 1)]

  @property
  def vocab(self) -> tuple[int, ...]:
    """The same number of codes a scale."""
    return (self.stage.vocab,) * len(self.scales)

  def layout(self, shape: tuple[int, ...]) -> tuple[tuple[int, ...], ...]:
    """The scales."""
    return tuple(tuple(grid) for grid in self.scales)

  def __call__(self, h: Array, *, train: bool) -> Latent:
    """[B,*s,D] -> Latent."""
    x, stage = self._start(h), self.stage
    z, codes, terms = jnp.zeros_like(x), [], {}
    for k, grid in enumerate(self.scales):
      found = stage.find(resized(jax.lax.stop_gradient(x - z), tuple(grid), area)).reshape(len(x), -1)
      z = self.add(z, found, k)
      codes.append(found)
      terms = _sum(terms, stage.losses(x, z), 1 / len(self.scales))
    joined = jnp.concatenate(codes, 1)
    return Latent(z=through(x, z, stage.gradient), codes=joined, terms=terms, logs=code_logs(joined, stage.vocab))

  def add(self, z: Array, codes: Array, scale: int) -> Array:
    """z [B,*s,D] of the scales before, codes [B,n] of this one (from 0) -> z with it."""
    rows = self.stage.embed(codes).reshape(len(codes), *self.scales[scale], -1)
    up = resized(rows, tuple(self.scales[-1]), bicubic)
    phi = self.phis[phi_of(len(self.scales), self.share)[scale]]
    return z + (1 - SHARE) * up + SHARE * phi(up)

  def empty(self, batch: int) -> Array:
    """z of no scale: zeros [B,*s,D]."""
    return jnp.zeros((batch, *self.scales[-1], self.stage.dim), jnp.float32)

  def seen(self, z: Array, scale: int) -> Array:
    """z of the scales before -> what a prior reads at this scale's places, [B,n,D]."""
    return resized(z, tuple(self.scales[scale]), area).reshape(len(z), -1, z.shape[-1])

  def embed(self, codes: Array) -> Array:
    """codes [B,N] -> z [B,*s,D]."""
    z = self.empty(len(codes))
    for k, part in enumerate(self.parts(codes)):
      z = self.add(z, part, k)
    return z

  def inputs(self, codes: Array) -> Array:
    """codes [B,N] -> [B,N,D]: `seen` at every scale, of the codes of the scales before it alone."""
    z, rows = self.empty(len(codes)), []
    for k, part in enumerate(self.parts(codes)):
      rows.append(self.seen(z, k))
      z = self.add(z, part, k)
    return jnp.concatenate(rows, 1)

  def parts(self, codes: Array) -> list[Array]:
    """codes [B,N] -> those of each scale [B,n]."""
    sizes = [math.prod(grid) for grid in self.scales]
    if codes.ndim != 2 or codes.shape[1] != sum(sizes):
      raise UserError(f"the scales have {sum(sizes)} codes, got {codes.shape}")
    return jnp.split(codes, np.cumsum(sizes)[:-1], 1)

  def _start(self, h: Array) -> Array:
    wanted = (*self.scales[-1], self.stage.dim)
    if h.shape[1:] != wanted:
      raise UserError(f"MultiScaleVQ is declared for features of {wanted}, but they are {h.shape[1:]}")
    return h.astype(jnp.float32)


def phi_of(scales: int, share: int) -> tuple[int, ...]:
  """Which phi each scale has (VAR's `PhiPartiallyShared`, whose places of four are not in the middle of quarters)."""
  count = share or scales
  edge = 1 / (3 if count == 4 else 2) / count
  places = np.linspace(edge, 1 - edge, count)
  return tuple(int(np.argmin(np.abs(places - k / max(scales - 1, 1)))) for k in range(scales))


def _sum(terms: dict[str, Any], more: Terms, weight: float) -> dict[str, Any]:
  return {name: terms.get(name, 0.0) + weight * value for name, value in more.items()}
