"""The encoder of DALL-E's discrete VAE (Ramesh et al. 2021, arXiv:2102.12092, appendix A.1, and its released code)."""

from typing import ClassVar

import flax.linen as nn

from latents.encoders.conv import check_stride
from latents.nn.conv import Conv, normal_fan_in, pooled
from latents.nn.residual import Residual
from latents.types import Array

MARGIN = 0.1  # numbers of a signal are moved into [MARGIN, 1 - MARGIN], where the logit is finite


def inward(x: Array) -> Array:
  """x [...] in [-1,1] -> (1 - 2 MARGIN) u + MARGIN in [0.1, 0.9], u in [0,1]: what is encoded and has a likelihood."""
  return (1.0 - 2.0 * MARGIN) * (0.5 * x + 0.5) + MARGIN


class DVAEEncoder(nn.Module):
  """[B,*S,C] in [-1,1] -> logits h [B,*S/f,out], f = 2^(len(mult) - 1), on any number of signal axes.

  The signal moved into [0.1, 0.9]; a convolution of 7 taps to `ch` channels; a group for each of `mult`, with `blocks`
  residual blocks of ch * mult channels and a quarter of that inside, and, but for the last, the largest of two
  neighbours; ReLU and a 1-tap convolution, in float32, to `out`, the number of codes. A block's path has the gain
  1 / (number of blocks)^2. Kernels start from N(0, 1 / fan_in). For `Gumbel(project=False)`. Sizes that f does not
  divide are a UserError. Parameters count groups and blocks from 1, as the release does.
  """

  last: ClassVar[tuple[str, ...]] = ("conv_out", "kernel")

  ch: int = 256
  mult: tuple[int, ...] = (1, 2, 4, 8)
  blocks: int = 2
  out: int = 8192
  dtype: str = "float32"

  @property
  def stride(self) -> int:
    """f."""
    return 2 ** (len(self.mult) - 1)

  @nn.compact
  def __call__(self, x: Array, *, train: bool) -> Array:
    """[B,*S,C] -> [B,*S/f,out]."""
    check_stride(x.shape[1:-1], self.stride)
    h = Conv(self.ch, 7, dtype=self.dtype, start=normal_fan_in, name="conv_in")(inward(x))
    for i, m in enumerate(self.mult, 1):
      h = dvae_group(h, self.ch * m, self.blocks, len(self.mult), (3, 3, 3, 1), self.dtype, i)
      h = pooled(h) if i < len(self.mult) else h
    return Conv(self.out, 1, start=normal_fan_in, name="conv_out")(nn.relu(h))


def dvae_group(h: Array, width: int, blocks: int, groups: int, sizes: tuple[int, ...], dtype: str, i: int) -> Array:
  """h [B,*S,C] -> [B,*S,width]: the blocks of group i of a dVAE's half; within a compact module."""
  for j in range(1, blocks + 1):
    gain = (blocks * groups) ** -2.0
    h = Residual(width, width // 4, sizes, gain, normal_fan_in, dtype, name=f"group{i}_block{j}")(h)
  return h
