"""The decoder of the deep compression autoencoder DC-AE (Chen et al. 2024, arXiv:2410.10733)."""

import flax.linen as nn
import jax.numpy as jnp

from latents.decoders.base import Decoder, read_z
from latents.encoders.conv import run_block
from latents.encoders.dc import check_levels, level_block
from latents.errors import UserError
from latents.nn.conv import Conv
from latents.nn.efficient_vit import Act, Norm, Up
from latents.nn.norm import RMSNorm
from latents.nn.shuffle import duplicate
from latents.types import Array, Latent


class DCDecoder(Decoder):
  """z [B,*s,D] -> x [B,*s*f,channels] with f = 2^(len(widths)-1): the mirror of `DCEncoder`, from the last level up.

  norms, acts: of each level's blocks; the released ones have batch norm and ReLU in the three finest. Batch norm's
  running statistics are in the collection "batch_stats"; see `RunningBatchNorm` for when they move. interpolate: `Up`
  by nearest neighbour (SANA's). shortcut_in: z itself, its channels repeated, beside the first convolution. The end is
  RMS norm, ReLU and a convolution, or, where level 0 has no blocks, an `Up` without shortcut.
  f32: as the defaults; f64, f128: one and two levels of 2048 channels and 2 blocks more.
  """

  widths: tuple[int, ...] = (128, 256, 512, 512, 1024, 1024)
  depths: tuple[int, ...] = (0, 5, 10, 2, 2, 2)
  channels: int = 3
  attention: tuple[int, ...] = (3, 4, 5)
  scales: tuple[int, ...] = ()
  head: int = 32
  interpolate: bool = False
  shortcut: bool = True
  shortcut_in: bool = True
  norms: tuple[Norm, ...] = ("batch", "batch", "batch", "rms", "rms", "rms")
  acts: tuple[Act, ...] = ("relu", "relu", "relu", "silu", "silu", "silu")
  remat: bool = False
  dtype: str = "float32"

  @property
  def last(self) -> tuple[str, ...]:  # pyright: ignore[reportIncompatibleVariableOverride]
    """That of the last convolution."""
    return ("conv_out", "kernel") if self.depths[0] else ("conv_out", "conv", "kernel")

  @nn.compact
  def reconstruct(self, latent: Latent, *, train: bool) -> Array:
    """z [B,*s,D] -> float32 [B,*s*f,channels]."""
    check_levels(self.widths, self.depths)
    if not len(self.norms) == len(self.acts) == len(self.widths):
      raise UserError(f"{len(self.norms)} norms and {len(self.acts)} acts: one of each for {len(self.widths)} levels")
    z = read_z(latent)
    h = Conv(self.widths[-1], dtype=self.dtype, name="conv_in")(z)
    if self.shortcut_in:
      h = h + duplicate(z, self.widths[-1]).astype(h.dtype)
    for i, depth in reversed(list(enumerate(self.depths))):
      first = int(i < len(self.widths) - 1)
      if depth and first:
        h = Up(self.widths[i], self.interpolate, self.shortcut, self.dtype, name=f"level{i}_part0")(h)
      for j in range(first, first + depth):
        part = level_block(self, i, self.norms[i], self.acts[i], f"level{i}_part{j}")
        h = run_block(part, h, train=train, remat=self.remat)
    h = nn.relu(RMSNorm(dtype=self.dtype, bias=True, name="norm_out")(h))
    if self.depths[0]:
      x = Conv(self.channels, dtype=self.dtype, name="conv_out")(h)
    else:
      x = Up(self.channels, self.interpolate, shortcut=False, dtype=self.dtype, name="conv_out")(h)
    return x.astype(jnp.float32)
