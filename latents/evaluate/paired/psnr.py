"""Peak signal-to-noise ratio."""

import dataclasses

import jax.numpy as jnp

from latents.evaluate.paired.base import MeanMetric
from latents.evaluate.sums import Tree
from latents.types import Array


@dataclasses.dataclass(frozen=True)
class PSNR(MeanMetric):
  """10 log10(1 / MSE) in dB on signals clipped to [-1,1] and mapped to [0,1], without uint8 rounding.

  Per sample, then the mean (not the PSNR of the mean error: Jensen's inequality parts the two). The MSE
  is at least 1e-10, so the largest value is 100 dB. A video counts as one sample.
  """

  @property
  def name(self) -> str:
    """The key of the result."""
    return "psnr"

  def each(self, x: Array, x_hat: Array, aux: Tree) -> Array:
    """[B,*S,C] twice -> [B] in dB."""
    difference = (jnp.clip(x, -1, 1) - jnp.clip(x_hat, -1, 1)) / 2
    mse = jnp.square(difference).reshape(len(x), -1).mean(1)
    return -10.0 * jnp.log10(jnp.maximum(mse, 1e-10))
