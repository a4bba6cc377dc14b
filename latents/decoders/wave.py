"""The convolutional waveform decoder: the mirror of `encoders/wave.py` (DAC, arXiv:2306.06546), without tanh."""

from typing import ClassVar

import flax.linen as nn
import jax.numpy as jnp

from latents.decoders.base import Decoder, read_z
from latents.encoders.wave import Activate, Activation, ResidualUnit, WaveConv
from latents.nn.conv import uniform_fan_in
from latents.types import Array, Latent


class WaveDecoder(Decoder):
  """z [B,n,D] -> x [B,n*f,channels] with f = prod(strides); `strides` are the ENCODER's, walked backwards.

  A 7-tap conv to ch * 2^len(strides) channels; per stride s an activation, a transposed conv of 2s taps that halves
  the channels, and three residual units; an activation and a 7-tap conv. The output is linear.
  DAC 44 kHz: ch 96 (1536 at the bottom), strides (2,4,8,8).
  """

  last: ClassVar[tuple[str, ...]] = ("conv_out", "conv", "kernel")

  ch: int = 64
  strides: tuple[int, ...] = (2, 4, 4, 4)
  channels: int = 1
  dilations: tuple[int, ...] = (1, 3, 9)
  activation: Activation = "snake"
  dtype: str = "float32"

  @nn.compact
  def reconstruct(self, latent: Latent, *, train: bool) -> Array:
    """z [B,n,D] -> float32 [B,n*f,channels]."""
    h = WaveConv(self.ch * 2 ** len(self.strides), 7, dtype=self.dtype, name="conv_in")(read_z(latent))
    for i, s in reversed(list(enumerate(self.strides))):
      h = Activate(self.activation, name=f"level{i}_act")(h)
      up = nn.ConvTranspose(
        self.ch * 2**i,
        (2 * s,),
        (s,),
        padding=[(2 * s - 1 - -(-s // 2), 2 * s - 1 - s // 2)],  # of the dilated input: n * s come out
        dtype=self.dtype,
        kernel_init=uniform_fan_in,
        name=f"level{i}_up",
      )
      h = up(h)
      for j, dilation in enumerate(self.dilations):
        h = ResidualUnit(dilation, self.activation, self.dtype, name=f"level{i}_unit{j}")(h)
    h = Activate(self.activation, name="act_out")(h)
    return WaveConv(self.channels, 7, dtype=self.dtype, name="conv_out")(h).astype(jnp.float32)
