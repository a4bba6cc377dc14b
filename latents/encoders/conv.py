"""The convolutional encoder of latent diffusion (Rombach et al. 2022, arXiv:2112.10752), from VQGAN (2012.09841)."""

from typing import Any

import flax.linen as nn

from latents.errors import UserError
from latents.nn.conv import AttentionBlock, Conv, Downsample, ResBlock
from latents.nn.norm import GroupNorm
from latents.types import Array, later


class ConvEncoder(nn.Module):
  """[B,*S,C] -> h [B,*S/f,out] with f = 2^(len(mult)-1), on one, two or three signal axes.

  Level i has ch * mult[i] channels and `blocks` residual blocks, each followed by attention where i is in
  `attention`; all levels but the last end in a stride of 2. Then the middle (block, attention where
  `mid_attention`, block) and GN, SiLU, conv to `out`.
  out: 2D for a KL bottleneck of D channels (LDM), else what the bottleneck wants.
  zero: residual blocks start as the identity (their last convolution at 0); LDM's do not, but learn faster so.
  remat: residual blocks are recomputed in the backward pass. groups, least: of all norms (`GroupNorm`); with least 1
  there are as many groups as the releases of others have, however narrow the layer. stem: channels of the first
  convolution (0: ch). project: a 1x1 conv to so many channels at the end (0: none). Sizes that f does not divide are a
  UserError.
  LDM: f4 mult (1,2,4); f8 (1,2,4,4); f16 (1,1,2,2,4), attention (4,); f32 (1,1,2,2,4,4), attention (4,5).
  """

  ch: int = 128
  mult: tuple[int, ...] = (1, 2, 4, 4)
  blocks: int = 2
  out: int = 8
  attention: tuple[int, ...] = ()
  mid_attention: bool = True
  zero: bool = False
  dropout: float = 0.0
  remat: bool = False
  dtype: str = "float32"
  groups: int = later(32)
  least: int = later(4)
  stem: int = later(0)
  project: int = later(0)

  @property
  def last(self) -> tuple[str, ...]:
    """The path of the last kernel."""
    return ("project" if self.project else "conv_out", "kernel")

  @property
  def stride(self) -> int:
    """f."""
    return 2 ** (len(self.mult) - 1)

  @nn.compact
  def __call__(self, x: Array, *, train: bool) -> Array:
    """[B,*S,C] -> [B,*S/f,out]."""
    check_stride(x.shape[1:-1], self.stride)
    norm: dict[str, Any] = {"groups": self.groups, "least": self.least}

    def block(h: Array, width: int, name: str) -> Array:
      part = ResBlock(width, zero=self.zero, dropout=self.dropout, dtype=self.dtype, **norm, name=name)
      return run_block(part, h, train=train, remat=self.remat)

    h = Conv(self.stem or self.ch, dtype=self.dtype, name="conv_in")(x)
    for i, m in enumerate(self.mult):
      for j in range(self.blocks):
        h = block(h, self.ch * m, f"level{i}_block{j}")
        if i in self.attention:
          h = AttentionBlock(dtype=self.dtype, **norm, name=f"level{i}_attention{j}")(h)
      if i < len(self.mult) - 1:
        h = Downsample(dtype=self.dtype, name=f"level{i}_down")(h)
    h = block(h, h.shape[-1], "mid_block0")
    if self.mid_attention:
      h = AttentionBlock(dtype=self.dtype, **norm, name="mid_attention")(h)
    h = block(h, h.shape[-1], "mid_block1")
    h = nn.silu(GroupNorm(dtype=self.dtype, **norm, name="norm_out")(h))
    h = Conv(self.out, dtype=self.dtype, name="conv_out")(h)
    return Conv(self.project, size=1, dtype=self.dtype, name="project")(h) if self.project else h


def check_stride(sizes: tuple[int, ...], stride: int) -> None:
  """Raises a UserError where the stride does not divide every one of the signal's sizes."""
  if any(n % stride for n in sizes):
    raise UserError(f"the signal's size {'x'.join(map(str, sizes))} does not divide by the encoder's stride {stride}")


def run_block(part: nn.Module, h: Array, *, train: bool, remat: bool) -> Array:
  """part(h, train=train), recomputed in the backward pass where remat (a closure: `train` must stay static)."""

  def call(module: nn.Module, h: Array) -> Array:
    return module(h, train=train)

  return (nn.remat(call) if remat else call)(part, h)
