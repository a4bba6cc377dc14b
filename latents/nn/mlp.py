"""Feed-forward layers of transformers."""

import flax.linen as nn
import jax.numpy as jnp

from latents.nn.linear import Dense
from latents.types import Array


class Mlp(nn.Module):
  """[...,C] -> same shape: Linear-GELU(tanh)-Linear with `ratio` * C hidden units (Vaswani et al. 2017).

  Parameters: fc1, fc2, Xavier-uniform with zero biases.
  """

  ratio: float = 4.0
  dtype: str = "float32"

  @nn.compact
  def __call__(self, x: Array) -> Array:
    """See the class."""
    init = nn.initializers.xavier_uniform()
    h = Dense(int(self.ratio * x.shape[-1]), dtype=self.dtype, kernel_init=init, name="fc1")(x)
    h = nn.gelu(h, approximate=True)
    return Dense(x.shape[-1], dtype=self.dtype, kernel_init=init, name="fc2")(h)


class GEGLU(nn.Module):
  """[...,C] -> same shape: down(h * GELU(gate)), (h, gate) = up(x), the exact GELU (Shazeer 2020, arXiv:2002.05202).

  `ratio` * C hidden units. Parameters: up, down, with biases.
  """

  ratio: float = 4.0
  dtype: str = "float32"

  @nn.compact
  def __call__(self, x: Array) -> Array:
    """See the class."""
    init = nn.initializers.xavier_uniform()
    up = Dense(2 * int(self.ratio * x.shape[-1]), dtype=self.dtype, kernel_init=init, name="up")
    h, gate = jnp.split(up(x), 2, -1)
    return Dense(x.shape[-1], dtype=self.dtype, kernel_init=init, name="down")(h * nn.gelu(gate, approximate=False))


def swiglu_hidden(width: int, multiple: int) -> int:
  """Hidden units that give SwiGLU the size of a 4x MLP: 2/3 * 4 * width, rounded up to a `multiple`."""
  return -(-(8 * width // 3) // multiple) * multiple


class SwiGLU(nn.Module):
  """[...,C] -> same shape: down(SiLU(gate(x)) * up(x)), no biases (Shazeer 2020, arXiv:2002.05202, eq. 6)."""

  hidden: int
  dtype: str = "float32"

  @nn.compact
  def __call__(self, x: Array) -> Array:
    """See the class."""

    def linear(width: int, name: str) -> nn.Dense:
      init = nn.initializers.normal(0.02)
      return Dense(width, use_bias=False, dtype=self.dtype, kernel_init=init, name=name)

    h = nn.silu(linear(self.hidden, "gate")(x)) * linear(self.hidden, "up")(x)
    return linear(x.shape[-1], "down")(h.astype(jnp.dtype(self.dtype)))
