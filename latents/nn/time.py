"""The embedding of the noise time."""

import math

import flax.linen as nn
import jax.numpy as jnp

from latents.nn.linear import Dense
from latents.types import Array


def frequencies(t: Array, count: int, period: float = 1e4) -> Array:
  """t [B] -> [B,count] float32: cosines then sines of t * period^(-i / (count/2)), as in DiT."""
  half = count // 2
  angle = t.astype(jnp.float32)[:, None] * jnp.exp(-math.log(period) * jnp.arange(half) / half)
  return jnp.concatenate([jnp.cos(angle), jnp.sin(angle)], -1)


class TimeEmbedding(nn.Module):
  """t [B] in [0,1] -> [B,width]: `count` frequencies of 1000 t, then Linear-SiLU-Linear.

  1000 t makes the usual range of DDPM's steps. Parameters: fc1, fc2, N(0, 0.02).
  """

  width: int
  count: int = 256
  dtype: str = "float32"

  @nn.compact
  def __call__(self, t: Array) -> Array:
    """See the class."""
    init = nn.initializers.normal(0.02)
    h = Dense(self.width, dtype=self.dtype, kernel_init=init, name="fc1")(frequencies(1000.0 * t, self.count))
    return Dense(self.width, dtype=self.dtype, kernel_init=init, name="fc2")(nn.silu(h))
