"""The encoder of the deep compression autoencoder DC-AE (Chen et al. 2024, arXiv:2410.10733)."""

import flax.linen as nn

from latents.encoders.conv import check_stride, run_block
from latents.errors import UserError
from latents.nn.conv import Conv
from latents.nn.efficient_vit import Act, Down, EfficientBlock, Norm, PlainBlock
from latents.nn.shuffle import average
from latents.types import Array


class DCEncoder(nn.Module):
  """[B,*S,C] -> h [B,*S/f,out] with f = 2^(len(widths)-1).

  Level i has widths[i] channels and depths[i] blocks: residual convolutions, or, where i is in `attention`,
  EfficientViT's (heads of `head` channels, `scales`: see `LinearAttention`). Every level but the last ends in `Down`
  (`strided`, `shortcut`: see there). Level 0 may have no block: then the first layer halves the signal, without a
  shortcut. The last layer gives `out` channels, beside means of its input where `shortcut_out`. RMS norm and SiLU.
  There is no KL: out is D, with `NoBottleneck`. remat: blocks are recomputed in the backward pass.
  f32c32: as the defaults (in-1.0; SANA's: strided, scales (5,)); f64c128: 2048 and 2 more; f128c512: twice that.
  """

  last = ("conv_out", "kernel")

  widths: tuple[int, ...] = (128, 256, 512, 512, 1024, 1024)
  depths: tuple[int, ...] = (0, 4, 8, 2, 2, 2)
  out: int = 32
  attention: tuple[int, ...] = (3, 4, 5)
  scales: tuple[int, ...] = ()
  head: int = 32
  strided: bool = False
  shortcut: bool = True
  shortcut_out: bool = True
  remat: bool = False
  dtype: str = "float32"

  @property
  def stride(self) -> int:
    """f."""
    return 2 ** (len(self.widths) - 1)

  @nn.compact
  def __call__(self, x: Array, *, train: bool) -> Array:
    """[B,*S,C] -> [B,*S/f,out]."""
    check_stride(x.shape[1:-1], self.stride)
    check_levels(self.widths, self.depths)
    if self.depths[0]:
      h = Conv(self.widths[0], dtype=self.dtype, name="conv_in")(x)
    else:
      h = Down(self.widths[1], self.strided, shortcut=False, dtype=self.dtype, name="conv_in")(x)
    for i, depth in enumerate(self.depths):
      for j in range(depth):
        part = level_block(self, i, "rms", "silu", f"level{i}_part{j}")
        h = run_block(part, h, train=train, remat=self.remat)
      if depth and i < len(self.widths) - 1:
        h = Down(self.widths[i + 1], self.strided, self.shortcut, self.dtype, name=f"level{i}_part{depth}")(h)
    made = Conv(self.out, dtype=self.dtype, name="conv_out")(h)
    return made + average(h, self.out) if self.shortcut_out else made


def level_block(module: nn.Module, level: int, norm: Norm, act: Act, name: str) -> nn.Module:
  """The block of a level of a DCEncoder or DCDecoder, whose fields say which; not yet called."""
  of: DCEncoder = module  # pyright: ignore[reportAssignmentType]
  if level in of.attention:
    return EfficientBlock(of.head, of.scales, norm, of.dtype, name=name)
  return PlainBlock(norm, act, of.dtype, name=name)


def check_levels(widths: tuple[int, ...], depths: tuple[int, ...]) -> None:
  """UserError for numbers of levels that differ or are below 2, and for a level without blocks other than level 0."""
  if len(widths) != len(depths) or len(widths) < 2:
    raise UserError(f"{len(widths)} widths and {len(depths)} depths: there must be as many of both, at least 2")
  if not all(depths[1:]):
    raise UserError(f"depths {depths}: only level 0 may have no blocks")
