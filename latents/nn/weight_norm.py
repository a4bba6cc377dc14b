"""Layers whose kernels have a length of their own (Salimans and Kingma 2016, arXiv:1602.07868)."""

from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp

from latents.nn.convolve import convolve
from latents.nn.linear import product
from latents.nn.sharding import constrain
from latents.types import Array

_uniform = nn.initializers.variance_scaling(1 / 3, "fan_in", "uniform")  # torch's of convolutions: 1/sqrt(fan in)


class WeightNormConv(nn.Module):
  """[B,*S,C] -> [B,*s,width]: a convolution with kernel scale * v / |v|, |v| over all but the last axis (eq. 2).

  size, stride: by axis. padding: zeros before and after by axis; None = size // 2 on both sides. Parameters: kernel (v,
  uniform within 1/sqrt(fan in)), scale [width] (begins as |v|, so that the first kernel is v), bias [width] (uniform
  within 1/sqrt(fan in)). gain: the scale begins there instead, and the bias at 0.
  """

  width: int
  size: tuple[int, ...]
  stride: tuple[int, ...]
  dtype: str = "float32"
  padding: tuple[tuple[int, int], ...] | None = None
  gain: float | None = None

  @nn.compact
  def __call__(self, x: Array) -> Array:
    """See the class."""
    shape = (*self.size, x.shape[-1], self.width)
    kernel = normed(self, _uniform, shape, gain=self.gain).astype(self.dtype)
    edge = 1.0 / jnp.sqrt(float(kernel[..., 0].size)) if self.gain is None else 0.0
    bias = self.param("bias", lambda key: jax.random.uniform(key, (self.width,), minval=-edge, maxval=edge))
    padding = self.padding or [(n // 2, n // 2) for n in self.size]
    h = convolve(x.astype(self.dtype), kernel, self.stride, padding)
    return constrain(h + bias.astype(h.dtype))


def normed(
  module: nn.Module, init: Any, shape: tuple[int, ...], kernel: str = "kernel", scale: str = "scale",
  gain: float | None = None,
) -> Array:  # fmt: skip
  """A kernel scale * v / |v| [shape] float32, |v| over all but the last axis (eq. 2); within a `nn.compact`.

  Parameters of the module: v under the name `kernel`, begins as `init` says; `scale` [the last axis] begins as |v|, so
  that the first kernel is v, or at `gain`.
  """
  v = module.param(kernel, init, shape)
  length = jnp.sqrt(jnp.square(v).sum(tuple(range(v.ndim - 1))))
  size = module.param(scale, lambda _: length if gain is None else jnp.full_like(length, gain))
  return v * (size / jnp.maximum(length, 1e-12))


class WeightNormDense(nn.Module):
  """[...,C] -> [...,width]: a linear layer with a kernel of `normed` and a bias that begins at 0."""

  width: int
  kernel_init: Any
  dtype: str = "float32"

  @nn.compact
  def __call__(self, x: Array) -> Array:
    """See the class."""
    kernel = normed(self, self.kernel_init, (x.shape[-1], self.width)).astype(self.dtype)
    bias = self.param("bias", nn.initializers.zeros, (self.width,), jnp.float32)
    return constrain(product(x.astype(self.dtype), kernel) + bias.astype(self.dtype))
