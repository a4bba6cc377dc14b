"""Layers that keep the magnitude of what they are given: EDM2 (Karras et al. 2024, arXiv:2312.02696, appendix B).

Magnitude is the root mean square. No layer has a bias, and a kernel has a direction alone: it is normalised as it is
used, so that its gradient is orthogonal to it. `optim.Forced` puts its length back after every update.
"""

import math

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np

from latents.errors import UserError
from latents.nn.attention import attend
from latents.nn.convolve import convolve
from latents.nn.linear import product
from latents.nn.sharding import constrain
from latents.types import Array


def unit(x: Array, axes: int | tuple[int, ...] = -1) -> Array:
  """x / rms(x) over `axes`, in float32 inside ("pixel norm", eq. 30); at least 1e-4 is divided by."""
  x32 = x.astype(jnp.float32)
  return (x32 * jax.lax.rsqrt(jnp.square(x32).mean(axes, keepdims=True) + 1e-8)).astype(x.dtype)


def unit_kernel(kernel: Array) -> Array:
  """[*k,C,F] -> the same with magnitude 1 for each of the F outputs (eq. 47)."""
  return unit(kernel, tuple(range(kernel.ndim - 1)))


def mp_silu(x: Array) -> Array:
  """SiLU over 0.596, its magnitude for x ~ N(0,1) (eq. 81)."""
  return nn.silu(x) / 0.596


def mp_sum(a: Array, b: Array, t: float) -> Array:
  """(1 - t) a + t b over the magnitude that it has for independent a and b of magnitude 1 (eq. 88)."""
  return ((1 - t) * a + t * b) / math.hypot(1 - t, t)


def mp_cat(a: Array, b: Array, t: float) -> Array:
  """a, b [...,C] side by side, with shares 1 - t and t of the square and magnitude 1 together (eq. 103)."""
  na, nb = a.shape[-1], b.shape[-1]
  scale = math.sqrt(na + nb) / math.hypot(1 - t, t)
  return jnp.concatenate([a * (scale * (1 - t) / math.sqrt(na)), b * (scale * t / math.sqrt(nb))], -1)


def _directions(key: Array, shape: tuple[int, ...]) -> Array:
  return unit_kernel(jax.random.normal(key, shape))


class MPConv(nn.Module):
  """[B,*S,C] -> [B,*S,width]: convolution with a normalised kernel (eq. 66); size 0: a linear layer of the last axis.

  Parameter: kernel [size...,C,width], of magnitude 1 at the start. `gain` [] multiplies the output.
  """

  width: int
  size: int = 3
  dtype: str = "float32"

  @nn.compact
  def __call__(self, x: Array, gain: Array | float = 1.0) -> Array:
    """See the class."""
    taps = (self.size,) * (x.ndim - 2) if self.size else ()
    kernel = self.param("kernel", _directions, (*taps, x.shape[-1], self.width))
    kernel = unit_kernel(kernel) * (gain / math.sqrt(kernel[..., 0].size))
    x, kernel = x.astype(self.dtype), kernel.astype(self.dtype)
    return constrain(convolve(x, kernel) if taps else product(x, kernel))


class MPFourier(nn.Module):
  """t [B] -> [B,count] float32: sqrt(2) cos(f t + p), f ~ N(0, (2 pi)^2), p uniform (eq. 75); of magnitude 1.

  f and p are constants: the same numbers in every network.
  """

  count: int

  def __call__(self, t: Array) -> Array:
    """See the class."""
    rng = np.random.default_rng(0)
    f, p = 2 * np.pi * rng.normal(size=self.count), 2 * np.pi * rng.random(self.count)
    angle = t.astype(jnp.float32)[:, None] * f.astype(np.float32) + p.astype(np.float32)
    return math.sqrt(2) * jnp.cos(angle)


class MPAttention(nn.Module):
  """[B,*S,C] -> same shape: self-attention over all positions, of queries, keys and values of magnitude 1 a head.

  So logits are sqrt(F) times a cosine (appendix B.3). head: numbers F of a head. Parameters: qkv, out.
  """

  head: int = 64
  dtype: str = "float32"

  @nn.compact
  def __call__(self, x: Array) -> Array:
    """See the class. UserError where the head does not divide C."""
    channels = x.shape[-1]
    if channels % self.head:
      raise UserError(f"heads of {self.head} do not divide {channels} channels")
    flat = x.reshape(x.shape[0], -1, channels)
    qkv = MPConv(3 * channels, 0, self.dtype, name="qkv")(flat)
    q, k, v = (unit(a.reshape(*flat.shape[:2], -1, self.head)) for a in jnp.split(qkv, 3, -1))
    h = attend(q, k, v).reshape(flat.shape)
    return MPConv(channels, 0, self.dtype, name="out")(h).reshape(x.shape)


class Uncertainty(nn.Module):
  """t [B] -> u [B]: the logarithm of the error to be expected at each time (eq. 21): one layer on `count` frequencies.

  t as backbones are told it; a loss e becomes e / exp(u) + u, least at u = ln e.
  """

  count: int = 128

  @nn.compact
  def __call__(self, t: Array) -> Array:
    """See the class."""
    return MPConv(1, 0, name="linear")(MPFourier(self.count)(1000 * t))[:, 0]
