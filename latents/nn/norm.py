"""Normalisation layers. Statistics are float32 whatever the compute dtype."""

import math
from typing import Literal

import flax.linen as nn
import jax
import jax.numpy as jnp

from latents.types import Array


def groups_of(channels: int, most: int = 32, least: int = 4) -> int:
  """The number of groups for GroupNorm: `most`, but at least `least` channels in each (where channels allow it).

  From 128 channels on that is LDM's 32. Narrow networks would have one channel in a group, and lose its mean
  (brightness, colour) at every norm. Where the number does not divide the channels: a common divisor.
  """
  groups = max(min(most, channels // least), 1)
  return groups if channels % groups == 0 else math.gcd(groups, channels)


class GroupNorm(nn.Module):
  """[B,*S,C] -> same shape: group normalisation (Wu & He 2018) with a learned scale and shift per channel.

  groups: at most so many groups, with at least `least` channels in each (see `groups_of`). eps: 1e-6 in LDM's
  autoencoders, 1e-5 in its U-Nets.
  Per-channel sums are taken first and then pooled per group: one pass over x, then x * a + b.
  """

  groups: int = 32
  eps: float = 1e-6
  dtype: str = "float32"
  least: int = 4

  @nn.compact
  def __call__(self, x: Array) -> Array:
    """See the class."""
    channels = x.shape[-1]
    groups = groups_of(channels, self.groups, self.least)
    scale = self.param("scale", nn.initializers.ones, (channels,), jnp.float32)
    bias = self.param("bias", nn.initializers.zeros, (channels,), jnp.float32)
    x32 = x.astype(jnp.float32)
    axes = tuple(range(1, x.ndim - 1))
    shape = (x.shape[0], groups, channels // groups)
    mean = x32.mean(axes).reshape(shape).mean(-1, keepdims=True)
    square = jnp.square(x32).mean(axes).reshape(shape).mean(-1, keepdims=True)
    inverse = jax.lax.rsqrt(jnp.maximum(square - jnp.square(mean), 0.0) + self.eps)
    a = inverse * scale.reshape(groups, -1)
    b = bias.reshape(groups, -1) - mean * a
    wide = (x.shape[0], *(1,) * len(axes), channels)
    return (x32 * a.reshape(wide) + b.reshape(wide)).astype(self.dtype)


class LayerNorm(nn.Module):
  """[...,C] -> same shape: layer normalisation without learned parameters (DiT's; eps 1e-6)."""

  eps: float = 1e-6
  dtype: str = "float32"

  @nn.compact
  def __call__(self, x: Array) -> Array:
    """See the class."""
    x = x.astype(jnp.float32)
    centred = x - x.mean(-1, keepdims=True)
    return (centred * jax.lax.rsqrt(jnp.square(centred).mean(-1, keepdims=True) + self.eps)).astype(self.dtype)


class RMSNorm(nn.Module):
  """[...,C] -> same shape: x / rms(x) * scale (Zhang & Sennrich 2019, eq. 4), plus a learned bias where `bias`."""

  eps: float = 1e-5
  dtype: str = "float32"
  bias: bool = False

  @nn.compact
  def __call__(self, x: Array) -> Array:
    """See the class."""
    scale = self.param("scale", nn.initializers.ones, (x.shape[-1],), jnp.float32)
    x = x.astype(jnp.float32)
    y = x * jax.lax.rsqrt(jnp.square(x).mean(-1, keepdims=True) + self.eps) * scale
    if self.bias:
      y = y + self.param("bias", nn.initializers.zeros, (x.shape[-1],), jnp.float32)
    return y.astype(self.dtype)


class RunningBatchNorm(nn.Module):
  """[B,*S,C] -> same shape: batch normalisation (Ioffe & Szegedy 2015) with a learned scale and bias per channel.

  In training, where the collection "batch_stats" is mutable, by the statistics of the global batch, which move the
  running ones: mean, var [C] and count [1], the batches seen. The first 1/rate batches count alike, so that short runs
  have statistics of their own. Otherwise by the running ones: a part that is not trained is in inference mode.
  """

  rate: float = 0.1
  eps: float = 1e-5
  dtype: str = "float32"

  @nn.compact
  def __call__(self, x: Array, *, train: bool) -> Array:
    """See the class."""
    shape = x.shape[-1:]
    scale = self.param("scale", nn.initializers.ones, shape, jnp.float32)
    bias = self.param("bias", nn.initializers.zeros, shape, jnp.float32)
    mean = self.variable("batch_stats", "mean", jnp.zeros, shape)
    var = self.variable("batch_stats", "var", jnp.ones, shape)
    count = self.variable("batch_stats", "count", jnp.zeros, (1,))
    x = x.astype(jnp.float32)
    now = mean.value, var.value
    if train and self.is_mutable_collection("batch_stats"):
      axes = tuple(range(x.ndim - 1))
      now = x.mean(axes), x.var(axes)
      if not self.is_initializing():
        r = jnp.maximum(self.rate, 1.0 / (count.value + 1.0))
        mean.value, var.value = (old.value + r * (new - old.value) for old, new in zip((mean, var), now, strict=True))
        count.value = count.value + 1.0
    return ((x - now[0]) * jax.lax.rsqrt(now[1] + self.eps) * scale + bias).astype(self.dtype)


NormKind = Literal["layer", "rms"]


def norm(kind: NormKind, dtype: str, name: str) -> nn.Module:
  """The norm of a modulated block: "layer" without parameters (DiT), "rms" with a learned scale (LightningDiT)."""
  return LayerNorm(dtype=dtype, name=name) if kind == "layer" else RMSNorm(1e-6, dtype, name=name)


def modulate(x: Array, shift: Array, scale: Array) -> Array:
  """x [B,N,C], shift and scale [B,1,C] -> x (1 + scale) + shift (adaLN, Peebles & Xie 2023)."""
  return x * (1 + scale) + shift


def unit(x: Array) -> Array:
  """[...,D] -> the same direction at length 1; 0 stays 0."""
  return x * jax.lax.rsqrt(jnp.maximum(jnp.square(x).sum(-1, keepdims=True), 1e-24))
