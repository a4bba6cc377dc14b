"""The layers of DC-AE (Chen et al. 2024, arXiv:2410.10733): shortcuts without parameters round a change of resolution,
and EfficientViT's blocks (Cai et al. 2022, arXiv:2205.14756), whose attention is linear in the number of positions."""

from typing import Literal

import flax.linen as nn
import jax
import jax.numpy as jnp

from latents.errors import UserError
from latents.nn.conv import Conv, DepthwiseConv, uniform_fan_in
from latents.nn.linear import Dense
from latents.nn.norm import RMSNorm, RunningBatchNorm
from latents.nn.sharding import constrain
from latents.nn.shuffle import average, channel_to_space, duplicate, space_to_channel
from latents.types import Array

Norm = Literal["rms", "batch"]
Act = Literal["silu", "relu"]


def _normed(kind: Norm, h: Array, train: bool, dtype: str) -> Array:
  """Called within a compact module: the layer "norm" on h."""
  if kind == "batch":
    return RunningBatchNorm(dtype=dtype, name="norm")(h, train=train)
  return RMSNorm(dtype=dtype, bias=True, name="norm")(h)


def _linear(features: int, bias: bool, dtype: str, name: str) -> nn.Dense:
  return Dense(features, use_bias=bias, dtype=dtype, kernel_init=uniform_fan_in, name=name)


class Down(nn.Module):
  """[B,*S,C] -> [B,*S/2,features]: a 3-tap convolution and space to channel (`strided`: a stride of 2 instead), plus,
  where `shortcut`, the input itself: space to channel, then means of neighbouring channels (figure 4)."""

  features: int
  strided: bool = False
  shortcut: bool = True
  dtype: str = "float32"

  @nn.compact
  def __call__(self, x: Array) -> Array:
    """See the class."""
    if self.strided:
      y = Conv(self.features, stride=2, padding="CENTRE", dtype=self.dtype, name="conv")(x)
    else:
      wide = 2 ** (x.ndim - 2)
      if self.features % wide:
        raise UserError(f"space to channel gives multiples of {wide} channels, not {self.features}")
      y = space_to_channel(Conv(self.features // wide, dtype=self.dtype, name="conv")(x))
    return y + average(space_to_channel(x), self.features) if self.shortcut else y


class Up(nn.Module):
  """[B,*S,C] -> [B,2*S,features]: a 3-tap convolution and channel to space (`interpolate`: nearest neighbour, then the
  convolution), plus, where `shortcut`, the input itself: channels repeated, then channel to space (figure 4)."""

  features: int
  interpolate: bool = False
  shortcut: bool = True
  dtype: str = "float32"

  @nn.compact
  def __call__(self, x: Array) -> Array:
    """See the class."""
    wide = self.features * 2 ** (x.ndim - 2)
    if self.interpolate:
      y = Conv(self.features, double=True, dtype=self.dtype, name="conv")(x)
    else:
      y = channel_to_space(Conv(wide, dtype=self.dtype, name="conv")(x))
    return y + channel_to_space(duplicate(x, wide)) if self.shortcut else y


class PlainBlock(nn.Module):
  """[B,*S,C] -> same shape: x + norm(conv2(act(conv1(x)))); conv2 has no bias."""

  norm: Norm = "rms"
  act: Act = "silu"
  dtype: str = "float32"

  @nn.compact
  def __call__(self, x: Array, *, train: bool) -> Array:
    """See the class."""
    h = Conv(x.shape[-1], dtype=self.dtype, name="conv1")(x)
    h = getattr(nn, self.act)(h)
    h = Conv(x.shape[-1], bias=False, dtype=self.dtype, name="conv2")(h)
    return x + _normed(self.norm, h, train, self.dtype)


class LinearAttention(nn.Module):
  """[B,*S,C] -> same shape: x + norm(out(ReLU linear attention)) (Cai et al. 2022, eq. 2).

  o_i = relu(q_i) sum_j relu(k_j)^T v_j / (relu(q_i) sum_j relu(k_j)^T), in float32. scales: taps of depthwise
  convolutions, each of which gives further queries, keys and values, mixed within heads of `head` channels. A head is
  3 `head` neighbouring channels of (q, k, v) side by side, as in the released networks.
  """

  head: int = 32
  scales: tuple[int, ...] = ()
  norm: Norm = "rms"
  dtype: str = "float32"
  eps: float = 1e-15

  @nn.compact
  def __call__(self, x: Array, *, train: bool) -> Array:
    """See the class."""
    channels, grid = x.shape[-1], x.shape[1:-1]
    if channels % self.head:
      raise UserError(f"{channels} channels do not divide into heads of {self.head}")
    qkv = _linear(3 * channels, False, self.dtype, "qkv")(x)
    several = [qkv]
    for i, size in enumerate(self.scales):
      wide = DepthwiseConv(size, dtype=self.dtype, bias=False, name=f"scale{i}_depthwise")(qkv)
      several.append(HeadMix(self.head, self.dtype, name=f"scale{i}_mix")(wide))
    heads = (1 + len(self.scales)) * channels // self.head
    split = jnp.concatenate(several, -1).astype(jnp.float32).reshape(x.shape[0], -1, heads, 3 * self.head)
    q, k, v = jnp.split(split, 3, -1)
    q, k = jax.nn.relu(q), jax.nn.relu(k)
    memory = jnp.einsum("bnhi,bnho->bhio", k, v)
    weight = jnp.einsum("bnhi,bhi->bnh", q, k.sum(1))
    h = jnp.einsum("bnhi,bhio->bnho", q, memory) / (weight[..., None] + self.eps)
    h = _linear(channels, False, self.dtype, "out")(h.reshape(x.shape[0], *grid, -1).astype(self.dtype))
    return x + _normed(self.norm, constrain(h), train, self.dtype)


class HeadMix(nn.Module):
  """[..,C] -> same shape: a linear map without bias within each group of `head` channels. kernel [head,C]."""

  head: int
  dtype: str = "float32"

  @nn.compact
  def __call__(self, x: Array) -> Array:
    """See the class."""
    kernel = self.param("kernel", uniform_fan_in, (self.head, x.shape[-1]), jnp.float32).astype(self.dtype)
    split = (-1, self.head)
    y = jnp.einsum("...gi,igo->...go", x.reshape(*x.shape[:-1], *split), kernel.reshape(self.head, *split))
    return y.reshape(x.shape)


class GatedConv(nn.Module):
  """[B,*S,C] -> same shape: x + norm(project(a * silu(g))), (a, g) = depthwise(silu(expand(x))) (GLU-MBConv).

  `expand` widens to 2 ratio C channels, the depthwise convolution has 3 taps, `project` no bias.
  """

  ratio: int = 4
  dtype: str = "float32"

  @nn.compact
  def __call__(self, x: Array) -> Array:
    """See the class."""
    h = nn.silu(_linear(2 * self.ratio * x.shape[-1], True, self.dtype, "expand")(x))
    h, gate = jnp.split(DepthwiseConv(3, dtype=self.dtype, name="depthwise")(h), 2, -1)
    h = constrain(_linear(x.shape[-1], False, self.dtype, "project")(h * nn.silu(gate)))
    return x + RMSNorm(dtype=self.dtype, bias=True, name="norm")(h)


class EfficientBlock(nn.Module):
  """[B,*S,C] -> same shape: linear attention, then a gated convolution, each with its residual."""

  head: int = 32
  scales: tuple[int, ...] = ()
  norm: Norm = "rms"
  dtype: str = "float32"

  @nn.compact
  def __call__(self, x: Array, *, train: bool) -> Array:
    """See the class."""
    x = LinearAttention(self.head, self.scales, self.norm, self.dtype, name="attention")(x, train=train)
    return GatedConv(dtype=self.dtype, name="gated")(x)
