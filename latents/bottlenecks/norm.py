"""DiTo's bottleneck (Chen et al. 2025, arXiv:2501.18593, section 3.2): a layer norm in place of the KL term."""

import jax
import jax.numpy as jnp

from latents.bottlenecks.base import Bottleneck
from latents.types import Array


class LayerNormLatent(Bottleneck):
  """[B,*s,E] -> z, same shape: layer normalisation over the WHOLE tensor of each sample, without parameters.

  Every z has mean 0 and variance 1 over its elements, so a prior needs no scale. It couples all positions: a crop's
  latent is not the crop of the latent, and the grid should be the one of training.
  """

  eps: float = 1e-5

  def store(self, h: Array) -> Array:
    """[B,*s,E] -> z [B,*s,E]."""
    h = h.astype(jnp.float32)
    axes = tuple(range(1, h.ndim))
    centred = h - h.mean(axes, keepdims=True)
    return centred * jax.lax.rsqrt(jnp.square(centred).mean(axes, keepdims=True) + self.eps)
