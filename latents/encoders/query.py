"""The encoder of one-dimensional tokenizers: TiTok (Yu et al. 2024, arXiv:2406.07550, section 3.2)."""

from typing import ClassVar

import flax.linen as nn
import jax.numpy as jnp

from latents.errors import UserError
from latents.nn.attention import Attention
from latents.nn.linear import Dense
from latents.nn.mlp import Mlp
from latents.nn.patch import patchify
from latents.nn.sharding import constrain
from latents.types import Array


class Trunk(nn.Module):
  """[B,N,width], keys [B,N] bool or None -> same shape: norm, `depth` pre-norm ViT blocks, norm.

  Tokens that `keys` marks False are seen by no other token. remat: blocks are recomputed in the backward pass. head:
  numbers of an attention head; 0 = width / heads.
  """

  depth: int
  heads: int
  remat: bool = False
  dtype: str = "float32"
  head: int = 0

  @nn.compact
  def __call__(self, h: Array, keys: Array | None = None) -> Array:
    """[B,N,width] -> same shape."""
    h = nn.LayerNorm(dtype=self.dtype, name="norm_in")(h)
    block = nn.remat(Block) if self.remat else Block
    for i in range(self.depth):
      h = block(self.heads, self.dtype, self.head, name=f"blocks_{i}")(h, keys)
    return nn.LayerNorm(dtype=self.dtype, name="norm_out")(h)


class Block(nn.Module):
  """[B,N,C] -> same shape: x + attention(LN(x)), then x + MLP(LN(x))."""

  heads: int
  dtype: str = "float32"
  head: int = 0

  @nn.compact
  def __call__(self, h: Array, keys: Array | None) -> Array:
    """[B,N,width] -> same shape."""
    normed = nn.LayerNorm(dtype=self.dtype, name="norm1")(h)
    h = h + Attention(self.heads, dtype=self.dtype, head=self.head, name="attention")(normed, keys)
    normed = nn.LayerNorm(dtype=self.dtype, name="norm2")(h)
    return constrain(h + Mlp(dtype=self.dtype, name="mlp")(normed))


class QueryEncoder(nn.Module):
  """[B,*S,C] -> h [B,tokens,out]: patches and `tokens` learned queries go through a ViT; the queries come out.

  Every token sees the whole signal; there is no grid. patch: size of the square (or segment, cube) patches, a
  UserError where it does not divide the signal. The positions are learned, so the size of the signal is the one
  of the first call. TiTok: S width 512 depth 8 heads 8; B 768, 12, 12; L 1024, 24, 16; without its class token.
  """

  last: ClassVar[tuple[str, ...]] = ("out_proj", "kernel")

  width: int = 512
  depth: int = 8
  heads: int = 8
  patch: int = 16
  tokens: int = 128
  out: int = 12
  remat: bool = False
  dtype: str = "float32"

  @nn.compact
  def __call__(self, x: Array, *, train: bool) -> Array:
    """[B,*S,C] -> [B,tokens,out]."""
    patches, grid = patchify(x, self.patch)
    position = learned_tokens(self, "position", patches.shape[1], self.width, f"a grid of {grid} patches")
    query = learned_tokens(self, "query", self.tokens, self.width, f"{self.tokens} tokens")
    h = Dense(self.width, dtype=self.dtype, kernel_init=nn.initializers.xavier_uniform(), name="embed")(patches)
    query = jnp.broadcast_to(query.astype(h.dtype), (x.shape[0], *query.shape))
    h = constrain(jnp.concatenate([h + position.astype(h.dtype), query], 1))
    h = Trunk(self.depth, self.heads, self.remat, self.dtype, name="trunk")(h)[:, patches.shape[1] :]
    return Dense(self.out, dtype=self.dtype, kernel_init=nn.initializers.xavier_uniform(), name="out_proj")(h)


def learned_tokens(module: nn.Module, name: str, count: int, width: int, what: str) -> Array:
  """The parameter [count,width] of `module`, N(0, 1/width); a UserError where it was made for another count."""
  if module.has_variable("params", name):
    made = module.get_variable("params", name).shape[0]
    if made != count:
      raise UserError(f"{type(module).__name__} has {made} learned positions, which do not fit {what}")
  return module.param(name, nn.initializers.normal(width**-0.5), (count, width), jnp.float32)
