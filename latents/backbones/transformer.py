"""Decoder-only transformer over tokens, with a key-value cache.

LlamaGen, Sun et al. 2024, arXiv:2406.06525 (RMSNorm, SwiGLU, zero-initialised head, class token first), with
learned or sine-cosine positions.
"""

from typing import Literal

import flax.linen as nn
import jax
import jax.numpy as jnp

from latents.errors import UserError
from latents.nn.attention import attend
from latents.nn.mlp import SwiGLU, swiglu_hidden
from latents.nn.norm import RMSNorm
from latents.nn.position import sincos
from latents.nn.sharding import constrain
from latents.types import Array

Cache = tuple[tuple[Array, Array], ...]  # per block: keys and values [B,L,heads,F], zeros where not yet written


class CausalBlock(nn.Module):
  """[B,L,width] -> same shape: pre-norm causal attention and SwiGLU, no biases, dropout on both branches."""

  width: int
  heads: int
  multiple: int = 256
  dropout: float = 0.0
  dtype: str = "float32"

  def setup(self) -> None:
    """See the class."""

    def linear(width: int) -> nn.Dense:
      return nn.Dense(width, use_bias=False, dtype=self.dtype, kernel_init=nn.initializers.normal(0.02))

    self.norm1, self.norm2 = RMSNorm(dtype=self.dtype), RMSNorm(dtype=self.dtype)
    self.qkv, self.proj = linear(3 * self.width), linear(self.width)
    self.mlp = SwiGLU(swiglu_hidden(self.width, self.multiple), dtype=self.dtype)
    self.drop = nn.Dropout(self.dropout)

  def _qkv(self, x: Array) -> tuple[Array, Array, Array]:
    h = self.qkv(self.norm1(x))
    q, k, v = jnp.split(h.reshape(*h.shape[:-1], 3 * self.heads, -1), 3, -2)
    return q, k, v

  def __call__(self, x: Array, train: bool) -> Array:
    """See the class."""
    q, k, v = self._qkv(x)
    h = self.proj(attend(q, k, v, causal=True).reshape(x.shape))
    x = x + self.drop(h, deterministic=not train)
    return constrain(x + self.drop(self.mlp(self.norm2(x)), deterministic=not train))

  def step(self, x: Array, index: Array, cache: tuple[Array, Array]) -> tuple[Array, tuple[Array, Array]]:
    """x [B,1,width] at position `index` [] -> the same position's output, and the cache with its key and value."""
    q, k, v = self._qkv(x)
    keys, values = (
      jax.lax.dynamic_update_slice_in_dim(old, new.astype(old.dtype), index, 1)
      for old, new in zip(cache, (k, v), strict=True)
    )
    written = jnp.arange(keys.shape[1]) <= index  # slots after `index` hold zeros, not keys
    h = self.proj(attend(q, keys, values, mask=written[None, None, None]).reshape(x.shape))
    x = x + h
    return x + self.mlp(self.norm2(x)), (keys, values)


class Transformer(nn.Module):
  """tokens [B,L] int32 in 0..vocab-1, cond [B] int32 or None -> logits [B,L,vocab] float32.

  Row i are the logits of token i given the tokens before i: the inputs are shifted here, and the class token
  stands at position 0. Tokens are positions in raster order with the `groups` levels of one position
  innermost (L = positions * groups); each level has its own embedding table. length: the L that is modelled.
  classes: number of labels, label `classes` is the null label and cond None means it.
  position: a learned table, or sines and cosines of the spatial index; plus a learned vector per level.
  multiple: SwiGLU's hidden width is rounded up to it. All logits are 0 at the start.
  Raises UserError where L is not `length`.
  """

  vocab: int
  width: int
  depth: int
  heads: int
  length: int
  classes: int = 0
  groups: int = 1
  position: Literal["learned", "sincos"] = "learned"
  multiple: int = 256
  dropout: float = 0.0
  remat: Literal["none", "block"] = "none"
  dtype: str = "float32"

  def setup(self) -> None:
    """See the class."""
    if self.length % self.groups:
      raise UserError(f"a length of {self.length} tokens does not divide into {self.groups} levels of codes")
    if self.width % self.heads:
      raise UserError(f"width {self.width} does not divide into {self.heads} heads")
    init = nn.initializers.normal(0.02)
    self.embed = nn.Embed(self.groups * self.vocab, self.width, dtype=self.dtype, embedding_init=init)
    self.label = nn.Embed(self.classes + 1, self.width, dtype=self.dtype, embedding_init=init)
    if self.position == "learned":
      self.positions = self.param("positions", init, (self.length // self.groups, self.width), jnp.float32)
    if self.groups > 1:
      self.levels = self.param("levels", init, (self.groups, self.width), jnp.float32)
    self.drop = nn.Dropout(self.dropout)
    block = nn.remat(CausalBlock, static_argnums=(2,)) if self.remat == "block" else CausalBlock
    self.blocks = [block(self.width, self.heads, self.multiple, self.dropout, self.dtype) for _ in range(self.depth)]
    self.norm = RMSNorm(dtype=self.dtype)
    self.head = nn.Dense(self.vocab, use_bias=False, dtype=self.dtype, kernel_init=nn.initializers.zeros)

  def _places(self) -> Array:
    """[L,width]: what is added at row i, which says WHICH token row i predicts (its position and its level)."""
    spatial = self.length // self.groups
    table = self.positions if self.position == "learned" else jnp.asarray(sincos((spatial,), self.width))
    places = jnp.repeat(table, self.groups, 0)
    return places + jnp.tile(self.levels, (spatial, 1)) if self.groups > 1 else places

  def _start(self, cond: Array | None, batch: int) -> Array:
    if cond is None or not self.classes:
      cond = jnp.full((batch,), self.classes, jnp.int32)
    return constrain(self.label(cond))

  def _logits(self, h: Array) -> Array:
    return self.head(self.norm(h)).astype(jnp.float32)

  def __call__(self, tokens: Array, cond: Array | None, *, train: bool = False) -> Array:
    """See the class."""
    if tokens.ndim != 2 or tokens.shape[1] != self.length:
      raise UserError(f"this transformer models [B,{self.length}] tokens, got {tokens.shape}")
    before = tokens[:, :-1] + self.vocab * (jnp.arange(self.length - 1) % self.groups)
    h = jnp.concatenate([self._start(cond, tokens.shape[0])[:, None], self.embed(before)], 1)
    h = constrain(self.drop(h + self._places().astype(h.dtype), deterministic=not train))
    for block in self.blocks:
      h = block(h, train)
    return self._logits(h)

  def cache(self, batch: int) -> Cache:
    """An empty cache for `batch` sequences: static shapes, zeros."""
    shape = (batch, self.length, self.heads, self.width // self.heads)
    return tuple((jnp.zeros(shape, self.dtype), jnp.zeros(shape, self.dtype)) for _ in range(self.depth))

  def step(self, token: Array, cond: Array | None, index: Array, cache: Cache) -> tuple[Array, Cache]:
    """Logits [B,vocab] of token `index` [] given token index-1 (`token` [B]; ignored at index 0), and the cache."""
    before = self.embed(token + self.vocab * ((index - 1) % self.groups))
    h = jnp.where(index == 0, self._start(cond, token.shape[0]), before)
    h = (h + self._places()[index].astype(h.dtype))[:, None]
    written = []
    for block, old in zip(self.blocks, cache, strict=True):
      h, new = block.step(h, index, old)
      written.append(new)
    return self._logits(h[:, 0]), tuple(written)
