"""The embedding of the noise time."""

import math

import flax.linen as nn
import jax.numpy as jnp

from latents.nn.linear import Dense
from latents.types import Array

Clock = tuple[float, float]  # (a, b): a network is told a t + b for the time t
FROM_0: Clock = (1000.0, -1.0)  # of the times 1/1000 to 1 of a chain whose 1000 steps count from 0


def frequencies(t: Array, count: int, period: float = 1e4) -> Array:
  """t [B] -> [B,count] float32: cosines then sines of t * period^(-i / (count/2)), as in DiT."""
  half = count // 2
  angle = t.astype(jnp.float32)[:, None] * jnp.exp(-math.log(period) * jnp.arange(half) / half)
  return jnp.concatenate([jnp.cos(angle), jnp.sin(angle)], -1)


class TimeEmbedding(nn.Module):
  """t [B] in [0,1] -> [B,width]: `count` frequencies of the clock's a t + b, then Linear-SiLU-Linear.

  1000 t makes the usual range of DDPM's steps. Parameters: fc1, fc2, N(0, 0.02).
  """

  width: int
  count: int = 256
  dtype: str = "float32"
  clock: Clock = (1000.0, 0.0)

  @nn.compact
  def __call__(self, t: Array) -> Array:
    """See the class."""
    init = nn.initializers.normal(0.02)
    a, b = self.clock
    seen = frequencies(a * t + b if b else a * t, self.count)
    h = Dense(self.width, dtype=self.dtype, kernel_init=init, name="fc1")(seen)
    return Dense(self.width, dtype=self.dtype, kernel_init=init, name="fc2")(nn.silu(h))


def embed_times(t: Array, width: int, dtype: str, count: int = 256, clock: Clock = (1000.0, 0.0)) -> Array:
  """t [B] or [B,n] -> [B,width]: the sum of embeddings "time", "time_1", ... of each time; within a `nn.compact`."""
  columns = (t,) if t.ndim == 1 else jnp.split(t, t.shape[1], 1)
  names = ("time", *(f"time_{i}" for i in range(1, len(columns))))
  pairs = zip(names, columns, strict=True)
  return sum(TimeEmbedding(width, count, dtype, clock, name=name)(one.reshape(-1)) for name, one in pairs)  # pyright: ignore
