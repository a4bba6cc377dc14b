"""Residual FSQ: several scalar quantisers, each on what the one before left."""

import math

import jax
import jax.numpy as jnp
import numpy as np

from latents.bottlenecks.base import Discrete, check_codes, code_logs, enter, pointwise, straight_through
from latents.bottlenecks.fsq import (
  check_levels,
  digits_to_index,
  even_value,
  index_to_digits,
  nearest_digits,
)
from latents.bottlenecks.nested import check_stages, stage_prefixes, stages_kept
from latents.types import Array, Latent, later


class ResidualFSQ(Discrete):
  """[B,*s,E] -> z [B,*s,d], codes [B,*s,G] in [0, prod(levels)); d = len(levels), G = quantizers.

  Per channel, with c = 1 + 1/(L-1): x = c tanh(h/c), r_0 = x, and in stage i (SoundStream, arXiv:2107.03312,
  algorithm 1, with scalar stages)
    q_i = the nearest of L levels evenly spaced in [-1,1] (Parker et al. 2024, arXiv:2411.19842, section 3.2) to
          L^i r_i,   r_{i+1} = r_i - L^-i q_i,   z = sum_i L^-i q_i.
  |L^i r_i| <= c in every stage, so the stages are the digits of x in base L: z is x rounded to a uniform grid of
  L^G values a channel, |z - x| <= L^(1-G) / (L-1), and every combination of codes is used. These are the scales
  of vector-quantize-pytorch 1.32's ResidualFSQ (older ones had (L-1)^-i and FSQ's tanh in every stage).
  A prefix of the codes is a coarser z: `embed(codes[..., :n])`.
  Straight-through once, around the sum: dz/dh = 1 - tanh^2(h/c).
  dropout: the share of a training batch whose examples keep their first n ~ U{1..G} stages alone (rng "bottleneck");
  those left out are -1 in the codes. variants, if dropout: the first G/4 and G/2 stages beside the whole.
  project: a 1x1 projection E -> d first; without it E must be d. logs: usage, perplexity, means over the stages.
  """

  levels: tuple[int, ...] = (8, 5, 5, 5)
  quantizers: int = 4
  project: bool = True
  dropout: float = later(0.0)

  @property
  def vocab(self) -> int:
    """The codes of one stage: the product of the levels."""
    return math.prod(check_levels(tuple(self.levels), least=2))

  def setup(self) -> None:
    """Makes the projection."""
    check_stages(self)
    if self.project:
      self.projection = pointwise(len(self.levels))

  def __call__(self, h: Array, *, train: bool) -> Latent:
    """[B,*s,E] -> Latent; the same for train True and False."""
    vocab, levels = self.vocab, tuple(self.levels)
    steps = np.asarray(levels, np.float32) - 1
    reach = 1 + 1 / steps
    keep = stages_kept(self, len(h), train)
    x = reach * jnp.tanh(enter(self, h, len(self.levels)) / reach)
    residual, codes = jax.lax.stop_gradient(x), []
    for i in range(self.quantizers):
      near = jnp.clip(residual * _scale(levels, i), -1.0, 1.0)
      digits = nearest_digits(near, levels)
      residual = residual - _values(digits, levels, i)
      codes.append(digits_to_index(digits, levels))
    codes = jnp.stack(codes, -1)
    if keep is not None:
      codes = jnp.where(jnp.arange(self.quantizers) < keep.reshape(-1, *[1] * (codes.ndim - 1)), codes, -1)
    logs = code_logs(codes, vocab, self.quantizers)
    return Latent(z=straight_through(x, self.embed(codes)), codes=codes, logs=logs)

  def embed(self, codes: Array) -> Array:
    """codes [B,*s,n], n <= G: the first n stages -> z [B,*s,d]; -1 is a stage left out."""
    levels, codes = tuple(self.levels), check_codes(codes, self.vocab, least=-1)
    z = jnp.zeros((*codes.shape[:-1], len(levels)), jnp.float32)
    for i in range(codes.shape[-1]):
      part = _values(index_to_digits(codes[..., i], levels), levels, i)
      z = z + jnp.where(codes[..., i, None] < 0, 0.0, part)
    return z

  def variants(self, latent: Latent) -> dict[str, Latent]:
    """{"": whole, "n stages": prefix}."""
    return stage_prefixes(self, latent)


def _values(digits: Array, levels: tuple[int, ...], stage: int) -> Array:
  """digits [...,d] int32 -> [...,d] float32: L^-stage times the level in [-1,1]."""
  return even_value(digits, levels, _scale(levels, -stage).astype(np.float64))


def _scale(levels: tuple[int, ...], power: int) -> np.ndarray:
  """[d] float32: L^power."""
  return (np.asarray(levels, np.float64) ** power).astype(np.float32)
