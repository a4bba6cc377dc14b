"""The convolutional decoder of latent diffusion (Rombach et al. 2022, arXiv:2112.10752), from VQGAN (2012.09841)."""

from typing import Any, ClassVar

import flax.linen as nn
import jax.numpy as jnp

from latents.decoders.base import Decoder, read_z
from latents.encoders.conv import run_block
from latents.nn.conv import AttentionBlock, Conv, ResBlock, Upsample
from latents.nn.norm import GroupNorm
from latents.types import Array, Latent, later


class ConvDecoder(Decoder):
  """z [B,*s,D] -> x [B,*s*f,channels] with f = 2^(len(mult)-1), on one, two or three signal axes; no tanh.

  The mirror of `ConvEncoder`: levels in reverse order, `blocks` + 1 residual blocks each, every level but the last
  (level 0) ends in a nearest-neighbour upsampling and a conv. `attention` counts levels as the encoder does.
  project: LDM's `post_quant_conv`, a 1x1 conv D -> `entry` (0: D) in front. channels: of the signal (1 grey, 3 RGB).
  zero, remat, groups, least: see the encoder.
  """

  last: ClassVar[tuple[str, ...]] = ("conv_out", "kernel")

  ch: int = 128
  mult: tuple[int, ...] = (1, 2, 4, 4)
  blocks: int = 2
  channels: int = 3
  attention: tuple[int, ...] = ()
  mid_attention: bool = True
  project: bool = True
  zero: bool = False
  dropout: float = 0.0
  remat: bool = False
  dtype: str = "float32"
  groups: int = later(32)
  least: int = later(4)
  entry: int = later(0)

  @nn.compact
  def reconstruct(self, latent: Latent, *, train: bool) -> Array:
    """z [B,*s,D] -> float32 [B,*s*f,channels]."""
    norm: dict[str, Any] = {"groups": self.groups, "least": self.least}

    def block(h: Array, width: int, name: str) -> Array:
      part = ResBlock(width, zero=self.zero, dropout=self.dropout, dtype=self.dtype, **norm, name=name)
      return run_block(part, h, train=train, remat=self.remat)

    h = read_z(latent)
    if self.project:
      h = Conv(self.entry or h.shape[-1], size=1, dtype=self.dtype, name="project")(h)
    h = Conv(self.ch * self.mult[-1], dtype=self.dtype, name="conv_in")(h)
    h = block(h, h.shape[-1], "mid_block0")
    if self.mid_attention:
      h = AttentionBlock(dtype=self.dtype, **norm, name="mid_attention")(h)
    h = block(h, h.shape[-1], "mid_block1")
    for i, m in reversed(list(enumerate(self.mult))):
      for j in range(self.blocks + 1):
        h = block(h, self.ch * m, f"level{i}_block{j}")
        if i in self.attention:
          h = AttentionBlock(dtype=self.dtype, **norm, name=f"level{i}_attention{j}")(h)
      if i > 0:
        h = Upsample(dtype=self.dtype, name=f"level{i}_up")(h)
    h = nn.silu(GroupNorm(dtype=self.dtype, **norm, name="norm_out")(h))
    return Conv(self.channels, dtype=self.dtype, name="conv_out")(h).astype(jnp.float32)
