"""Residual FSQ: several FSQ stages, each on what the one before left (SoundStream's RVQ with scalar stages)."""

import math

import jax
import jax.numpy as jnp
import numpy as np

from latents.bottlenecks.base import Discrete, code_logs, pointwise
from latents.bottlenecks.fsq import (
  check_levels,
  digits_to_index,
  digits_to_value,
  index_to_digits,
  quantise,
  to_channels,
)
from latents.types import Array, Latent


class ResidualFSQ(Discrete):
  """[B,*s,E] -> z [B,*s,d], codes [B,*s,G] in [0, prod(levels)); d = len(levels), G = quantizers.

  Stage i (from 0) quantises r / s_i with s_i = (L-1)^-i per channel and passes on r - sg(s_i q_i); z = sum s_i q_i
  (SoundStream, arXiv:2107.03312, algorithm 1; the scales of vector-quantize-pytorch's ResidualFSQ). A prefix of
  the codes is a coarser z: `embed(codes[..., :n])`. The derivative is the sum of the stages' own ones.
  clamp: h is first squashed to +-(1 + 1/(L-1)) by c tanh(h/c), the reach of stage 0, and the stages clip in place of
    tanh, so that every stage can code what the one before left (that package's `bound_hard_clamp`).
  project: a 1x1 projection E -> d first; without it E must be d. logs: usage, perplexity, means over the stages.
  """

  levels: tuple[int, ...] = (8, 5, 5, 5)
  quantizers: int = 4
  clamp: bool = False
  project: bool = True

  @property
  def vocab(self) -> int:
    """The codes of one stage: the product of the levels."""
    return math.prod(check_levels(tuple(self.levels)))

  def setup(self):
    if self.project:
      self.projection = pointwise(len(self.levels))

  def __call__(self, h: Array, *, train: bool) -> Latent:
    """[B,*s,E] -> Latent; the same for train True and False."""
    vocab, levels = self.vocab, tuple(self.levels)
    residual = to_channels(self, h)
    if self.clamp:
      reach = (1.0 + _scale(levels, 1)).astype(np.float32)
      residual = reach * jnp.tanh(residual / reach)
    z, codes = jnp.zeros_like(residual), []
    for i in range(self.quantizers):
      digits, value = quantise(residual * _scale(levels, -i), levels, self.clamp)
      value = value * _scale(levels, i)
      residual = residual - jax.lax.stop_gradient(value)
      z = z + value
      codes.append(digits_to_index(digits, levels))
    codes = jnp.stack(codes, -1)
    return Latent(z=z, codes=codes, logs=code_logs(codes, vocab, self.quantizers))

  def embed(self, codes: Array) -> Array:
    """codes [B,*s,n], n <= G: the first n stages -> z [B,*s,d]."""
    levels = tuple(self.levels)
    z = jnp.zeros((*codes.shape[:-1], len(levels)), jnp.float32)
    for i in range(codes.shape[-1]):
      z = z + digits_to_value(index_to_digits(codes[..., i], levels), levels) * _scale(levels, i)
    return z


def _scale(levels: tuple[int, ...], power: int) -> np.ndarray:
  """[d] float32: (L-1)^-power."""
  return ((np.asarray(levels, np.float64) - 1) ** -power).astype(np.float32)
