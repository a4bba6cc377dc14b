"""Convolutional blocks of LDM's autoencoder and U-Net (Rombach et al. 2022, arXiv:2112.10752, appendix).

Everything takes [B,*S,C] and works for one, two or three signal axes: kernels are 3 per axis.
"""

import functools
import itertools
from typing import Literal

import flax.linen as nn
import jax
import jax.numpy as jnp
from jax.nn.initializers import Initializer

from latents.errors import UserError
from latents.nn.attention import attend
from latents.nn.convolve import convolve
from latents.nn.linear import Dense
from latents.nn.norm import GroupNorm
from latents.nn.sharding import constrain
from latents.types import Array

# PyTorch's default for convolutions and linear layers: uniform in +-1/sqrt(fan_in), i.e. variance 1/(3 fan_in).
uniform_fan_in = nn.initializers.variance_scaling(1 / 3, "fan_in", "uniform")
normal_fan_in = nn.initializers.variance_scaling(1.0, "fan_in", "normal")


class Conv(nn.Module):
  """[B,*S,C] -> [B,*S',features]: convolution with `size` taps an axis and PyTorch's initial weights.

  padding: "SAME", "VALID", or "CENTRE": size // 2 at both ends, as PyTorch has it where a stride is even.
  zero: kernel starts at 0. double: S' = 2 S at a stride of 1. With three taps x has every element repeated along all
  axes (the nearest neighbour of twice the size); with four it is the transposed convolution of stride 2, of x with a
  zero after every element. start: the kernel's initial distribution.
  Parameters: kernel [size..., C, features], and, where `bias`, bias.
  """

  features: int
  size: int = 3
  stride: int = 1
  padding: str = "SAME"
  zero: bool = False
  double: bool = False
  dtype: str = "float32"
  bias: bool = True
  start: Initializer = uniform_fan_in

  @nn.compact
  def __call__(self, x: Array) -> Array:
    """See the class."""
    axes = x.ndim - 2
    init = nn.initializers.zeros if self.zero else self.start
    kernel = self.param("kernel", init, (self.size,) * axes + (x.shape[-1], self.features), jnp.float32)
    x = x.astype(self.dtype)
    if self.double:
      y = (doubled if self.size == 3 else transposed)(x, kernel)
    else:
      padding = [(self.size // 2, self.size // 2)] * axes if self.padding == "CENTRE" else self.padding
      y = convolve(x, kernel.astype(self.dtype), self.stride, padding)
    return constrain(_biased(self, y, self.features))


def _biased(layer: "Conv | DepthwiseConv", y: Array, channels: int) -> Array:
  """y + the layer's bias, where it has one."""
  if not layer.bias:
    return y
  return y + layer.param("bias", nn.initializers.zeros, (channels,), jnp.float32).astype(layer.dtype)


def doubled(x: Array, kernel: Array) -> Array:
  """x [B,*S,C], kernel float32 [3...,C,F] -> [B,*2S,F] in x's dtype: the "SAME" convolution of `nearest(x)`.

  Of three taps two always fall on the same element of x, so that an output is a sum over two elements an axis: the even
  ones with taps (k0, k1 + k2), the odd ones with (k0 + k1, k2). In two axes 16 products an element of x, not 36.
  """
  for axis in range(x.ndim - 2):
    k0, k1, k2 = jnp.split(kernel, 3, 2 * axis)
    kernel = jnp.stack([jnp.concatenate([k0, k1 + k2], 2 * axis), jnp.concatenate([k0 + k1, k2], 2 * axis)])
  return _woven(x, kernel)


def transposed(x: Array, kernel: Array) -> Array:
  """x [B,*S,C], kernel float32 [4...,C,F] -> [B,*2S,F] in x's dtype: the transposed convolution of stride 2.

  The "SAME" convolution (two zeros at both ends) of x with a zero after every element, without the products of zeros:
  even outputs have taps (k0, k2), odd ones (k1, k3). PyTorch's `padding=1` is this, with its taps in reverse order.
  Forward and back on a CPU it takes a twentieth of the time of `jax.lax.conv_transpose` (64 to 64 channels, 16 px).
  """
  for axis in range(x.ndim - 2):
    kernel = jnp.stack([jax.lax.slice_in_dim(kernel, odd, None, 2, 2 * axis) for odd in (0, 1)])
  return _woven(x, kernel)


def _woven(x: Array, kernel: Array) -> Array:
  """x [B,*S,C], kernel [even or odd by axis, the last first..., 2 taps by axis..., C, F] -> [B,*2S,F]: the outputs of
  even places see the element before them and their own, those of odd places their own and the next."""
  axes, kernel = x.ndim - 2, kernel.astype(x.dtype)
  # One convolution with all of them as features takes XLA's CPU compiler 50 times as long, back.
  parts = [
    convolve(x, kernel[odd[::-1]], padding=[(1 - n, n) for n in odd]) for odd in itertools.product((0, 1), repeat=axes)
  ]
  y = jnp.stack(parts, -2).reshape(*x.shape[:-1], *(2,) * axes, -1)
  order = [0, *(i for axis in range(1, axes + 1) for i in (axis, axis + axes)), 2 * axes + 1]
  return y.transpose(order).reshape(x.shape[0], *(2 * n for n in x.shape[1:-1]), -1)


class DepthwiseConv(nn.Module):
  """[B,H,W,C] -> [B,H/stride,W/stride,C]: every channel is convolved alone, "SAME" padding; any number of axes.

  On CPU as a sum of shifted products: XLA's grouped convolutions take 6 times as long there (EfficientNet's
  first stages at 64 px, forward and back). Parameters: kernel [size..., 1, C] (LeCun), and, where `bias`, bias.
  """

  size: int = 3
  stride: int = 1
  dtype: str = "float32"
  bias: bool = True

  @nn.compact
  def __call__(self, x: Array) -> Array:
    """See the class."""
    axes, channels = x.ndim - 2, x.shape[-1]
    init = nn.initializers.lecun_normal()
    kernel = self.param("kernel", init, (self.size,) * axes + (1, channels), jnp.float32)
    x, kernel = x.astype(self.dtype), kernel.astype(self.dtype)
    few = functools.partial(shifted, stride=self.stride)
    grouped = functools.partial(convolve, stride=self.stride, groups=channels)
    y = jax.lax.platform_dependent(x, kernel, cpu=few, default=grouped)
    return constrain(_biased(self, y, channels))


def shifted(x: Array, kernel: Array, stride: int) -> Array:
  """x [B,*S,C], kernel [size...,1,C] -> [B,*ceil(S/stride),C]: a depthwise convolution, one product a tap."""
  size, out = kernel.shape[0], [-(-n // stride) for n in x.shape[1:-1]]
  spare = [max((m - 1) * stride + size - n, 0) for n, m in zip(x.shape[1:-1], out, strict=True)]
  x = jnp.pad(x, [(0, 0), *[(p // 2, p - p // 2) for p in spare], (0, 0)])
  y = jnp.zeros((), x.dtype)
  for tap in itertools.product(range(size), repeat=len(out)):
    window = tuple(slice(i, i + (m - 1) * stride + 1, stride) for i, m in zip(tap, out, strict=True))
    y = y + x[(slice(None), *window)] * kernel[(*tap, 0)]
  return y


class Downsample(nn.Module):
  """[B,*S,C] -> [B,*S/2,C]: pads one at the bottom and right, then a 3-tap convolution of stride 2, no padding.

  both: pads one at both ends, as U-Nets do.
  """

  features: int | None = None
  dtype: str = "float32"
  both: bool = False

  @nn.compact
  def __call__(self, x: Array) -> Array:
    """See the class."""
    if any(n % 2 for n in x.shape[1:-1]):
      raise UserError(f"Downsample halves every axis, but the input's axes are {x.shape[1:-1]}")
    if not self.both:
      x = jnp.pad(x, [(0, 0), *[(0, 1)] * (x.ndim - 2), (0, 0)])
    padding = "CENTRE" if self.both else "VALID"
    return Conv(self.features or x.shape[-1], stride=2, padding=padding, dtype=self.dtype, name="conv")(x)


def pooled(x: Array) -> Array:
  """[B,*S,C] -> [B,*S/2,C]: the largest of two neighbours along every signal axis, all of which must be even.

  Where both are the same each gets half of the gradient. (`nn.max_pool` takes 15 times as long on a CPU, back.)
  """
  for axis in range(1, x.ndim - 1):
    x = jnp.maximum(*(jax.lax.slice_in_dim(x, odd, None, 2, axis) for odd in (0, 1)))
  return x


def halved(x: Array) -> Array:
  """[B,*S,C] -> [B,*S/2,C]: the mean of two neighbours along every signal axis, all of which must be even."""
  for axis in range(1, x.ndim - 1):
    x = sum(jax.lax.slice_in_dim(x, odd, None, 2, axis) for odd in (0, 1)) / 2
  return x


def nearest(x: Array, factor: int = 2) -> Array:
  """[B,*S,C] -> [B,*S*factor,C]: nearest-neighbour upsampling of every signal axis."""
  for axis in range(1, x.ndim - 1):
    x = jnp.repeat(x, factor, axis)
  return x


class Upsample(nn.Module):
  """[B,*S,C] -> [B,2*S,C]: nearest neighbour, then a 3-tap convolution."""

  features: int | None = None
  dtype: str = "float32"

  @nn.compact
  def __call__(self, x: Array) -> Array:
    """See the class."""
    return Conv(self.features or x.shape[-1], double=True, dtype=self.dtype, name="conv")(x)


class ResBlock(nn.Module):
  """[B,*S,C] -> [B,*S,features]: x + conv(SiLU(GN(conv(SiLU(GN(x)))))), a 1-tap shortcut if channels change.

  With `time` [B,E] (U-Nets): Linear(SiLU(time)) is added after the first convolution, or, with `film`, scales
  and shifts the second norm's output (ADM, arXiv:2105.05233, "AdaGN"). zero: the last convolution starts at 0.
  dropout: rate before the last convolution, active when train (rng "dropout").
  groups, least: of the norms (`GroupNorm`). resize: x, and what the first norm gives, are first doubled (nearest
  neighbour) or halved (means), as ADM's blocks between levels.
  Parameters: norm1, conv1, norm2, conv2, shortcut (if channels change), time (if `time` is given).
  """

  features: int | None = None
  eps: float = 1e-6
  film: bool = False
  zero: bool = False
  dropout: float = 0.0
  dtype: str = "float32"
  groups: int = 32
  least: int = 4
  resize: Literal["none", "double", "halve"] = "none"

  @nn.compact
  def __call__(self, x: Array, time: Array | None = None, *, train: bool = False) -> Array:
    """See the class."""
    features = self.features or x.shape[-1]

    def norm(name: str) -> GroupNorm:
      return GroupNorm(self.groups, self.eps, self.dtype, self.least, name=name)

    h = nn.silu(norm("norm1")(x))
    if self.resize == "halve":
      x, h = halved(x), halved(h)
    elif self.resize == "double":
      x = nearest(x)
    h = Conv(features, double=self.resize == "double", dtype=self.dtype, name="conv1")(h)
    shift = scale = None
    if time is not None:
      width = 2 * features if self.film else features
      dense = Dense(width, dtype=self.dtype, kernel_init=uniform_fan_in, name="time")
      shift = constrain(dense(nn.silu(time))).reshape(x.shape[0], *(1,) * (x.ndim - 2), width)
      if self.film:
        scale, shift = jnp.split(shift, 2, -1)
      else:
        h = h + shift
    h = norm("norm2")(h)
    if scale is not None:
      h = h * (1 + scale) + shift
    h = nn.Dropout(self.dropout, deterministic=not train)(nn.silu(h))
    h = Conv(features, zero=self.zero, dtype=self.dtype, name="conv2")(h)
    if features != x.shape[-1]:
      x = Conv(features, size=1, dtype=self.dtype, name="shortcut")(x)
    return x + h


class AttentionBlock(nn.Module):
  """[B,*S,C] -> same shape: x + out(attention(q, k, v of GN(x))) over all positions; LDM's middle block.

  heads: 1 in the autoencoders. zero: the output projection starts at 0. groups, least: of the norm. bare: without
  it. Parameters: norm, q, k, v, out.
  """

  heads: int = 1
  eps: float = 1e-6
  zero: bool = False
  dtype: str = "float32"
  groups: int = 32
  least: int = 4
  bare: bool = False

  @nn.compact
  def __call__(self, x: Array) -> Array:
    """See the class."""
    channels = x.shape[-1]
    if channels % self.heads:
      raise UserError(f"{channels} channels do not divide into {self.heads} heads")
    h = x if self.bare else GroupNorm(self.groups, self.eps, self.dtype, self.least, name="norm")(x)
    h = h.reshape(x.shape[0], -1, channels)
    split = (*h.shape[:2], self.heads, channels // self.heads)

    def linear(name: str, zero: bool = False) -> nn.Dense:
      init = nn.initializers.zeros if zero else uniform_fan_in
      return Dense(channels, dtype=self.dtype, kernel_init=init, name=name)

    q, k, v = (linear(name)(h).reshape(split) for name in ("q", "k", "v"))
    h = linear("out", self.zero)(attend(q, k, v).reshape(h.shape))
    return x + h.reshape(x.shape)
