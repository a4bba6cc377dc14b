"""Layers with equalised learning rates (Karras et al. 2017, arXiv:1710.10196, section 4.1), as StyleGAN2 has them."""

import math

import flax.linen as nn
import jax
import jax.numpy as jnp

from latents.nn.convolve import convolve
from latents.nn.sharding import constrain
from latents.types import Array


class EqualConv(nn.Module):
  """[B,*S,C] -> [B,*s,width]: a convolution whose kernel ~ N(0,1) is scaled by 1 / sqrt(fan in) as it is used.

  So all weights have one size and Adam moves all at one relative rate. size: taps, of every axis; padding: (zeros
  before, after), stride: by axis; without an axis it is a dense layer. Parameters: kernel [size...,C,width], bias.
  """

  width: int
  size: int = 3
  stride: tuple[int, ...] = ()
  padding: tuple[tuple[int, int], ...] = ()
  bias: bool = True
  dtype: str = "float32"

  @nn.compact
  def __call__(self, x: Array) -> Array:
    """See the class."""
    axes = x.ndim - 2
    kernel = self.param("kernel", nn.initializers.normal(1.0), (*(self.size,) * axes, x.shape[-1], self.width))
    kernel = (kernel / math.sqrt(kernel[..., 0].size)).astype(self.dtype)
    x = x.astype(self.dtype)
    if axes:
      x = convolve(x, kernel, self.stride or 1, self.padding or ((self.size // 2, self.size // 2),) * axes)
    else:
      x = x @ kernel
    if self.bias:
      x = x + self.param("bias", nn.initializers.zeros, (self.width,)).astype(self.dtype)
    return constrain(x)


def leaky(x: Array) -> Array:
  """sqrt(2) leaky_relu(x), slope 0.2: of about the length of x where x is centred."""
  return jax.nn.leaky_relu(x, 0.2) * jnp.asarray(math.sqrt(2.0), x.dtype)


def blur(x: Array, axis: int, padding: int) -> Array:
  """Convolution with (1, 3, 3, 1) / 8 along one signal axis of [B,*S,C], `padding` zeros at both ends: n -> n + 2p - 3.

  As a sum of shifted parts: no layout to mistake, and XLA's grouped convolutions are slow on CPU.
  """
  x = jnp.pad(x, [(padding, padding) if i == axis else (0, 0) for i in range(x.ndim)])
  length = x.shape[axis] - 3
  a, b, c, d = (jax.lax.slice_in_dim(x, i, i + length, axis=axis) for i in range(4))
  return (a + d + 3.0 * (b + c)) * 0.125
