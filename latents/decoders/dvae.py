"""The decoder of DALL-E's discrete VAE (Ramesh et al. 2021, arXiv:2102.12092, appendix A.1, and its released code)."""

from typing import ClassVar

import flax.linen as nn
import jax.numpy as jnp

from latents.decoders.base import Decoder, read_z
from latents.encoders.dvae import dvae_group
from latents.nn.conv import Conv, nearest, normal_fan_in
from latents.types import Array, Latent


class DVAEDecoder(Decoder):
  """z [B,*s,D] -> x [B,*s*f,channels], f = 2^(len(mult) - 1), on any number of signal axes: `DVAEEncoder` mirrored.

  The network's first layer is a 1-tap convolution of one-hot codes: its kernel is the bottleneck's codebook, whose rows
  z are sums of, and its bias [D] is here. Then the groups of `mult` from the last to the first, but for the last each
  followed by a repetition of every element, ReLU, and a 1-tap convolution. channels: two for each of the signal's, for
  `LogitLaplaceDecoder`. Gain, kernels and names: see the encoder.
  """

  last: ClassVar[tuple[str, ...]] = ("conv_out", "kernel")

  ch: int = 256
  mult: tuple[int, ...] = (1, 2, 4, 8)
  blocks: int = 2
  channels: int = 6
  dtype: str = "float32"

  @nn.compact
  def reconstruct(self, latent: Latent, *, train: bool) -> Array:
    """z [B,*s,D] -> float32 [B,*s*f,channels]."""
    z = read_z(latent)
    h = z + self.param("bias", nn.initializers.zeros, z.shape[-1:], jnp.float32)
    for i, m in enumerate(self.mult[::-1], 1):
      h = dvae_group(h, self.ch * m, self.blocks, len(self.mult), (1, 3, 3, 3), self.dtype, i)
      h = nearest(h) if i < len(self.mult) else h
    conv = Conv(self.channels, 1, dtype=self.dtype, start=normal_fan_in, name="conv_out")
    return conv(nn.relu(h)).astype(jnp.float32)
