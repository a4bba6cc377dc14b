"""The encoder of VQ-VAE (van den Oord et al. 2017, arXiv:1711.00937, section 4.1) and of VQ-VAE-2 (1906.00446)."""

import flax.linen as nn

from latents.encoders.conv import check_stride
from latents.nn.conv import Conv
from latents.nn.residual import Residual
from latents.types import Array


class StridedEncoder(nn.Module):
  """[B,*S,C] -> h [B,*S/f,W], f = 2^len(widths): strided convolutions, then residual blocks without norms; any axes.

  One convolution of 4 taps and stride 2 for each of `widths`, ReLU between them; `blocks` residual blocks (ReLU, 3
  taps, ReLU, 1 tap) of `units` channels inside; ReLU. W is the last of `widths`, or `hidden` where that is not 0: then
  a ReLU and a convolution of 3 taps come before the blocks, and where `relu` one more ReLU after it.
  Sizes that f does not divide are a UserError.

  VQ-VAE: widths (256, 256), units 256; sonnet's, by its authors: (64, 128), hidden 128, units 32, relu. VQ-VAE-2:
  hidden 128, units 64 (rosinality's: 32), widths (64, 128) for the bottom and (64,) for what lies above it. The paper's
  "3" of an encoder's kernels is taken for the blocks': strided ones have 4 taps in all public code.
  """

  widths: tuple[int, ...] = (256, 256)
  hidden: int = 0
  blocks: int = 2
  units: int = 256
  relu: bool = False
  dtype: str = "float32"

  @property
  def stride(self) -> int:
    """f."""
    return 2 ** len(self.widths)

  @property
  def last(self) -> tuple[str, ...]:
    """The last kernel."""
    if self.blocks:
      return (f"block{self.blocks - 1}", "conv2", "kernel")
    return ("conv" if self.hidden else f"down{len(self.widths) - 1}", "kernel")

  @nn.compact
  def __call__(self, x: Array, *, train: bool) -> Array:
    """[B,*S,C] -> [B,*S/f,W]."""
    check_stride(x.shape[1:-1], self.stride)
    h = x
    for i, width in enumerate(self.widths):
      h = Conv(width, 4, 2, dtype=self.dtype, name=f"down{i}")(nn.relu(h) if i else h)
    if self.hidden:
      h = Conv(self.hidden, dtype=self.dtype, name="conv")(nn.relu(h))
      h = nn.relu(h) if self.relu else h
    for i in range(self.blocks):
      h = Residual(h.shape[-1], self.units, dtype=self.dtype, name=f"block{i}")(h)
    return nn.relu(h)
