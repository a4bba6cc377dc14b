"""Distances between wavelet coefficients, for pictures, video and sound."""

import dataclasses

import jax.numpy as jnp

from latents.errors import UserError
from latents.losses.base import Reconstruction, Tree
from latents.nn.wavelet import haar
from latents.types import Array


@dataclasses.dataclass(frozen=True)
class Wavelet(Reconstruction):
  """mean |W x - W x_hat| over the coefficients of the Haar transform W, of which there are as many as numbers in x.

  LTX-Video (HaCohen et al. 2025, arXiv:2501.00103, "video-DWT loss"): the 2^n = 8 bands of a clip, n = 3 axes; here of
  any number of axes. levels: how often the low band is transformed again. An error a that is flat costs a / 2^(n l / 2)
  at l levels, a checkerboard a / 2^(n / 2) at any: from two levels on high frequencies weigh more than in `L1`.
  A sum over bands of their means is 2^n times this with one level. UserError where 2^levels does not divide an axis.
  """

  levels: int = 1

  def __call__(self, x: Array, x_hat: Array, *, aux: Tree = None) -> Array:
    """[B,*S,C] twice -> []."""
    axes = x.shape[1:-1]
    if self.levels < 1 or any(n % 2**self.levels for n in axes):
      size = "x".join(map(str, axes))
      raise UserError(f"the wavelet loss has {self.levels} levels: {2**self.levels} does not divide a signal of {size}")
    low, total = x.astype(jnp.float32) - x_hat.astype(jnp.float32), jnp.zeros(())  # the transform is linear
    for _ in range(self.levels):
      low, *high = haar(low)
      total += sum(jnp.abs(band).sum() for band in high)
    return (total + jnp.abs(low).sum()) / x.size
