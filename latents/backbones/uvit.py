"""U-ViT: Bao, Nie, Xue, Cao, Li, Su, Zhu 2022, arXiv:2209.12152, section 3 and table 1."""

import flax.linen as nn
import jax.numpy as jnp

from latents.errors import UserError
from latents.nn.attention import Attention
from latents.nn.condition import embed_labels
from latents.nn.conv import Conv
from latents.nn.linear import Dense
from latents.nn.mlp import Mlp
from latents.nn.patch import patchify, unpatchify
from latents.nn.remat import Remat, recomputed
from latents.nn.sharding import constrain
from latents.nn.time import frequencies
from latents.types import Array, Cond

START = nn.initializers.truncated_normal(0.02)


class SkipBlock(nn.Module):
  """x [B,N,width] -> x: attention and MLP after norms; an earlier block's output first, side by side through `skip`."""

  heads: int
  ratio: float = 4.0
  dtype: str = "float32"

  @nn.compact
  def __call__(self, x: Array, before: Array | None) -> Array:
    """See the class."""
    if before is not None:
      both = jnp.concatenate([x, before], -1)
      x = Dense(x.shape[-1], dtype=self.dtype, kernel_init=START, name="skip")(both)
    h = nn.LayerNorm(1e-5, dtype=self.dtype, name="norm1")(x)
    x = x + Attention(self.heads, dtype=self.dtype, bias=False, name="attention")(h)
    h = nn.LayerNorm(1e-5, dtype=self.dtype, name="norm2")(x)
    return constrain(x + Mlp(self.ratio, self.dtype, "erf", name="mlp")(h))


class UViT(nn.Module):
  """x [B,*s,D], t [B] in [0,1], cond or None -> [B,*s,out] float32; exactly 0 at the start.

  Time (its frequencies of 1000 t, no MLP) and class are tokens beside those of x, positions are learned, and block i of
  the second half reads block depth - 1 - i of the first beside its own input (long skips, fig. 1). depth: of all
  blocks, odd: one stands in the middle. conv: a 3-tap convolution at the end (its smaller models). classes, out, patch:
  see `DiT`; the grid is that of the first call. The last layer is 0 at the start, as all backbones here have it; the
  paper's is N(0, 0.02). Raises UserError for an even depth.
  """

  depth: int
  width: int
  heads: int
  patch: int = 2
  classes: int = 0
  out: int | None = None
  mlp_ratio: float = 4.0
  conv: bool = True
  remat: Remat = "none"
  dtype: str = "float32"

  @property
  def conditions(self) -> tuple[str, ...]:
    """Names of what it reads of a condition."""
    return ("label",) if self.classes else ()

  @nn.compact
  def __call__(self, x: Array, t: Array, cond: Cond | None, *, train: bool = False) -> Array:
    """See the class."""
    del train  # no dropout
    if self.depth % 2 == 0:
      raise UserError(f"a U-ViT has an odd number of blocks, not {self.depth}: halves that are joined, and a middle")
    tokens, grid = patchify(x, self.patch)
    h = Dense(self.width, dtype=self.dtype, kernel_init=START, name="embed")(tokens)
    extra = [frequencies(1000.0 * t, self.width).astype(self.dtype)]
    if self.classes:
      extra.insert(0, embed_labels(cond, self.classes, t.shape[0], self.width, self.dtype))
    h = jnp.concatenate([jnp.stack(extra, 1), h], 1)
    h = constrain(h + self.param("positions", START, h.shape[1:], jnp.float32).astype(self.dtype))
    block, half, skips = recomputed(SkipBlock, self.remat), self.depth // 2, []
    for i in range(self.depth):
      h = block(self.heads, self.mlp_ratio, self.dtype, name=f"blocks_{i}")(h, skips.pop() if i > half else None)
      if i < half:
        skips.append(h)
    h = nn.LayerNorm(1e-5, dtype=self.dtype, name="norm_out")(h)[:, len(extra) :]
    out, zero = self.out or x.shape[-1], nn.initializers.zeros
    init = START if self.conv else zero
    h = Dense(out * self.patch ** len(grid), dtype=self.dtype, kernel_init=init, name="final")(h)
    h = unpatchify(h, grid, self.patch)
    if self.conv:
      h = Conv(out, zero=True, dtype=self.dtype, name="conv_out")(h)
    return h.astype(jnp.float32)


def uvit_s(patch: int = 2, **fields) -> UViT:
  """U-ViT-S: 13 blocks of width 512, 8 heads, 44M (table 1)."""
  return UViT(depth=13, width=512, heads=8, patch=patch, **fields)


def uvit_m(patch: int = 2, **fields) -> UViT:
  """U-ViT-M: 17 blocks of width 768, 12 heads, 131M."""
  return UViT(depth=17, width=768, heads=12, patch=patch, **fields)


def uvit_l(patch: int = 2, **fields) -> UViT:
  """U-ViT-L: 21 blocks of width 1024, 16 heads, 287M."""
  return UViT(depth=21, width=1024, heads=16, patch=patch, **fields)


def uvit_h(patch: int = 2, **fields) -> UViT:
  """U-ViT-H: 29 blocks of width 1152, 16 heads, 501M."""
  return UViT(depth=29, width=1152, heads=16, patch=patch, **fields)
