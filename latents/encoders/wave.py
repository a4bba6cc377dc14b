"""The convolutional waveform encoder: SoundStream's SEANet (arXiv:2107.03312) as in DAC (arXiv:2306.06546, A)."""

import math
from typing import ClassVar, Literal

import flax.linen as nn
import jax.numpy as jnp

from latents.encoders.conv import check_stride
from latents.nn.conv import uniform_fan_in
from latents.nn.convolve import FlaxConv
from latents.types import Array

Activation = Literal["snake", "elu"]


class Activate(nn.Module):
  """[B,T,C] -> same shape: ELU, or Snake x + sin^2(a x) / a with a learned a per channel, 1 at the start.

  Snake: Ziyin et al. 2020, arXiv:2006.08195, eq. 3; computed in float32.
  """

  kind: Activation = "snake"

  @nn.compact
  def __call__(self, x: Array) -> Array:
    """[B,T,C] -> [B,T',C'], see the class."""
    if self.kind == "elu":
      return nn.elu(x)
    a = self.param("alpha", nn.initializers.ones, (x.shape[-1],), jnp.float32)
    x32 = x.astype(jnp.float32)
    return (x32 + jnp.square(jnp.sin(a * x32)) / (a + 1e-9)).astype(x.dtype)


class WaveConv(nn.Module):
  """[B,T,C] -> [B,ceil(T/stride),features]: `size` taps, dilated; padded by `pad` (left, right), default centred."""

  features: int
  size: int
  stride: int = 1
  dilation: int = 1
  pad: tuple[int, int] | None = None
  dtype: str = "float32"

  @nn.compact
  def __call__(self, x: Array) -> Array:
    """[B,T,C] -> [B,T',C'], see the class."""
    half = (self.size - 1) * self.dilation // 2
    conv = FlaxConv(
      self.features,
      (self.size,),
      (self.stride,),
      padding=[self.pad or (half, half)],
      kernel_dilation=(self.dilation,),
      dtype=self.dtype,
      kernel_init=uniform_fan_in,
      name="conv",
    )
    return conv(x)


class ResidualUnit(nn.Module):
  """[B,T,C] -> same shape: x + conv1(act(conv7(act(x)))), the 7 taps `dilation` apart."""

  dilation: int
  activation: Activation = "snake"
  dtype: str = "float32"

  @nn.compact
  def __call__(self, x: Array) -> Array:
    """[B,T,C] -> [B,T',C'], see the class."""
    h = Activate(self.activation, name="act1")(x)
    h = WaveConv(x.shape[-1], 7, dilation=self.dilation, dtype=self.dtype, name="conv1")(h)
    h = Activate(self.activation, name="act2")(h)
    return x + WaveConv(x.shape[-1], 1, dtype=self.dtype, name="conv2")(h)


class WaveEncoder(nn.Module):
  """[B,T,C] -> h [B,T/f,out] with f = prod(strides): fully convolutional, not causal, any T that f divides.

  A 7-tap conv to ch channels; per stride s three residual units (`dilations`), an activation and a conv of 2s taps
  that doubles the channels; an activation and a 3-tap conv to `out`. No weight normalisation.
  DAC 44 kHz: ch 64, strides (2,4,8,8), snake; SoundStream: ch 32, strides (2,4,5,8), elu.
  """

  last: ClassVar[tuple[str, ...]] = ("conv_out", "conv", "kernel")

  ch: int = 64
  strides: tuple[int, ...] = (2, 4, 4, 4)
  out: int = 64
  dilations: tuple[int, ...] = (1, 3, 9)
  activation: Activation = "snake"
  dtype: str = "float32"

  @property
  def stride(self) -> int:
    """f."""
    return math.prod(self.strides)

  @nn.compact
  def __call__(self, x: Array, *, train: bool) -> Array:
    """[B,T,C] -> [B,T/f,out]."""
    check_stride(x.shape[1:-1], self.stride)
    h = WaveConv(self.ch, 7, dtype=self.dtype, name="conv_in")(x)
    for i, s in enumerate(self.strides):
      for j, dilation in enumerate(self.dilations):
        h = ResidualUnit(dilation, self.activation, self.dtype, name=f"level{i}_unit{j}")(h)
      h = Activate(self.activation, name=f"level{i}_act")(h)
      pad = (-(-s // 2), s // 2)  # 2s taps padded by s in all: exactly T / s come out, for odd s too
      width = self.ch * 2 ** (i + 1)
      h = WaveConv(width, 2 * s, s, pad=pad, dtype=self.dtype, name=f"level{i}_down")(h)
    h = Activate(self.activation, name="act_out")(h)
    return WaveConv(self.out, 3, dtype=self.dtype, name="conv_out")(h)
