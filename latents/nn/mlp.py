"""Feed-forward layers of transformers."""

from typing import Literal

import flax.linen as nn
import jax.numpy as jnp

from latents.nn.linear import Dense
from latents.types import Array

MlpKind = Literal["gelu", "erf", "swiglu"]


class Mlp(nn.Module):
  """[...,C] -> same shape: Linear, activation, Linear with `ratio` * C hidden units (Vaswani et al. 2017).

  kind: "gelu" by the tanh, "erf" exactly (U-ViT, arXiv:2209.12152), or "swiglu", SiLU(a) * b of a first layer that
  gives both, a before b (Shazeer 2020, arXiv:2002.05202), with 2/3 of the hidden units, so as many parameters
  (LightningDiT, arXiv:2501.01423). dropout: of the hidden units, rng "dropout". Parameters: fc1, fc2, Xavier-uniform
  with zero biases.
  """

  ratio: float = 4.0
  dtype: str = "float32"
  kind: MlpKind = "gelu"
  dropout: float = 0.0

  @nn.compact
  def __call__(self, x: Array, *, train: bool = False) -> Array:
    """See the class."""
    init = nn.initializers.xavier_uniform()
    hidden = int(self.ratio * x.shape[-1])
    if self.kind == "swiglu":
      hidden = int(2 / 3 * hidden)
      h = Dense(2 * hidden, dtype=self.dtype, kernel_init=init, name="fc1")(x)
      h = nn.silu(h[..., :hidden]) * h[..., hidden:]
    else:
      h = nn.gelu(Dense(hidden, dtype=self.dtype, kernel_init=init, name="fc1")(x), approximate=self.kind == "gelu")
    if self.dropout:
      h = nn.Dropout(self.dropout, deterministic=not train)(h)
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
