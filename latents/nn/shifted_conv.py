"""Gated residual blocks of convolutions that look up and to the left by where their zeros stand.

PixelCNN++: Salimans, Karpathy, Chen, Kingma 2017, arXiv:1701.05517; as in the authors' code (openai/pixel-cnn).
"""

from typing import Literal

import flax.linen as nn
import jax
import jax.numpy as jnp

from latents.nn.weight_norm import WeightNormConv
from latents.types import Array

Look = Literal["up", "corner", "here"]
Activation = Literal["concat_elu", "elu"]
TAPS: dict[Look, tuple[int, int]] = {"up": (2, 3), "corner": (2, 2), "here": (1, 1)}


def activate(kind: Activation, x: Array) -> Array:
  """[...,C] -> [...,2 C] of "concat_elu", ELU of x and of -x, or [...,C]."""
  return jax.nn.elu(jnp.concatenate([x, -x], -1) if kind == "concat_elu" else x)


class ShiftedConv(nn.Module):
  """[B,H,W,C] -> [B,H/stride,W/stride,width] by a kernel of weight norm, whose last row is the place's own.

  look: "up": the kernel's columns are about the place's own; "corner": the last column is its own; "here": 1 tap. A
  network of these is causal because its input was shifted. size: taps by axis, () = the paper's. double: x first has a
  zero after every element of both axes: the transposed convolution of stride 2. gain: see
  `WeightNormConv`; the paper's first pass over data, which would set scales and biases, is left out.
  """

  width: int
  look: Look
  size: tuple[int, ...] = ()
  stride: int = 1
  double: bool = False
  gain: float = 1.0
  dtype: str = "float32"

  @nn.compact
  def __call__(self, x: Array) -> Array:
    """See the class."""
    rows, columns = self.size or TAPS[self.look]
    if self.double:
      x = jax.lax.pad(x, jnp.zeros((), x.dtype), [(0, 0, 0), (0, 1, 1), (0, 1, 1), (0, 0, 0)])
    sides = (columns // 2, columns // 2) if self.look == "up" else (columns - 1, 0)
    padding = ((rows - 1, 0), sides)
    stride = (self.stride, self.stride)
    return WeightNormConv(self.width, (rows, columns), stride, self.dtype, padding, self.gain, name="conv")(x)


class GatedResnet(nn.Module):
  """x [B,H,W,C], beside [B,H,W,E] or None -> x + a sigmoid(b) (figure 2 of the paper, and the code).

  a, b = conv(dropout(f(conv(f(x)) + 1 tap of f(beside)))) + told, the last convolution at a tenth of the gain, f the
  activation. told: [B,1,1,2 C] or [B,H,W,2 C], or 0: what a label says. look: of both convolutions.
  """

  look: Look
  dropout: float = 0.0
  activation: Activation = "concat_elu"
  dtype: str = "float32"

  @nn.compact
  def __call__(self, x: Array, beside: Array | None = None, told: Array | float = 0.0, *, train: bool) -> Array:
    """See the class."""
    width = x.shape[-1]
    h = ShiftedConv(width, self.look, dtype=self.dtype, name="conv1")(activate(self.activation, x))
    if beside is not None:
      beside = activate(self.activation, beside)
      h = h + ShiftedConv(width, "here", dtype=self.dtype, name="beside")(beside)
    h = nn.Dropout(self.dropout, deterministic=not train)(activate(self.activation, h))
    h = ShiftedConv(2 * width, self.look, gain=0.1, dtype=self.dtype, name="conv2")(h) + told
    a, b = jnp.split(h, 2, -1)
    return x + a * nn.sigmoid(b)
