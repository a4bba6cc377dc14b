"""The decoder of VQ-VAE (van den Oord et al. 2017, arXiv:1711.00937, section 4.1) and of VQ-VAE-2 (1906.00446)."""

import flax.linen as nn
import jax.numpy as jnp

from latents.decoders.base import Decoder, read_z
from latents.nn.conv import Conv
from latents.nn.residual import Residual
from latents.types import Array, Latent


class StridedDecoder(Decoder):
  """z [B,*s,D] -> x [B,*s*f,channels], f = 2^(len(widths) + 1), on any signal axes: `StridedEncoder` mirrored.

  A convolution of 3 taps to `hidden`, `blocks` residual blocks of `units` channels inside, ReLU; then transposed
  convolutions of 4 taps and stride 2 to each of `widths` and last to `channels`, ReLU between them.
  VQ-VAE: hidden 256, widths (256,). VQ-VAE-2: hidden 128, widths (64,); what brings the top to the grid below: ().
  """

  hidden: int = 256
  widths: tuple[int, ...] = (256,)
  blocks: int = 2
  units: int = 256
  channels: int = 3
  dtype: str = "float32"

  @property
  def last(self) -> tuple[str, ...]:  # pyright: ignore[reportIncompatibleVariableOverride]
    """The last kernel."""
    return (f"up{len(self.widths)}", "kernel")

  @nn.compact
  def reconstruct(self, latent: Latent, *, train: bool) -> Array:
    """z [B,*s,D] -> float32 [B,*s*f,channels]."""
    h = Conv(self.hidden, dtype=self.dtype, name="conv_in")(read_z(latent))
    for i in range(self.blocks):
      h = Residual(self.hidden, self.units, dtype=self.dtype, name=f"block{i}")(h)
    for i, width in enumerate((*self.widths, self.channels)):
      h = Conv(width, 4, double=True, dtype=self.dtype, name=f"up{i}")(nn.relu(h))
    return h.astype(jnp.float32)
