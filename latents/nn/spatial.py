"""The spatial transformer of latent diffusion's U-Net (Rombach et al. 2022, arXiv:2112.10752, section 3.3)."""

import flax.linen as nn

from latents.nn.attention import ContextAttention
from latents.nn.conv import Conv, uniform_fan_in
from latents.nn.linear import Dense
from latents.nn.mlp import GEGLU
from latents.nn.norm import GroupNorm
from latents.types import Array


class ContextBlock(nn.Module):
  """x [B,N,C], context [B,M,E] or None, mask [B,M] -> x: self-attention, attention to the context, GEGLU of 4 C, each
  after a layer norm and added. Without a context there is none to attend to."""

  heads: int
  dtype: str = "float32"

  @nn.compact
  def __call__(self, x: Array, context: Array | None = None, mask: Array | None = None) -> Array:
    """See the class."""

    def norm(name: str) -> nn.LayerNorm:
      return nn.LayerNorm(epsilon=1e-5, dtype=self.dtype, name=name)

    x = x + ContextAttention(self.heads, self.dtype, name="attention")(norm("norm1")(x))
    if context is not None:
      x = x + ContextAttention(self.heads, self.dtype, name="cross")(norm("norm2")(x), context, mask)
    return x + GEGLU(dtype=self.dtype, name="mlp")(norm("norm3")(x))


class SpatialTransformer(nn.Module):
  """x [B,*S,C], context, mask as `ContextBlock` -> x + out(blocks(in(GN(x)))) over all positions; x at the start.

  linear: the layers in and out are linear ones (Stable Diffusion 2), not 1-tap convolutions: the same function, other
  arrays. groups, least: of the norm (eps 1e-6). Parameters: norm, in, blocks_0, .., out.
  """

  heads: int
  depth: int = 1
  linear: bool = False
  dtype: str = "float32"
  groups: int = 32
  least: int = 4

  def _project(self, name: str, h: Array, shape: tuple[int, ...], zero: bool) -> Array:
    """h [B,N,C] -> [B,N,C]."""
    if self.linear:
      init = nn.initializers.zeros if zero else uniform_fan_in
      return Dense(shape[-1], dtype=self.dtype, kernel_init=init, name=name)(h)
    return Conv(shape[-1], size=1, zero=zero, dtype=self.dtype, name=name)(h.reshape(shape)).reshape(h.shape)

  @nn.compact
  def __call__(self, x: Array, context: Array | None = None, mask: Array | None = None) -> Array:
    """See the class."""
    h = GroupNorm(self.groups, 1e-6, self.dtype, self.least, name="norm")(x).reshape(x.shape[0], -1, x.shape[-1])
    h = self._project("in", h, x.shape, zero=False)
    for i in range(self.depth):
      h = ContextBlock(self.heads, self.dtype, name=f"blocks_{i}")(h, context, mask)
    return x + self._project("out", h, x.shape, zero=True).reshape(x.shape)
