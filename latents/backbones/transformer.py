"""Decoder-only transformer over tokens, with a key-value cache.

LlamaGen, Sun et al. 2024, arXiv:2406.06525 (RMSNorm, SwiGLU, zero-initialised head, class token first), with
learned or sine-cosine positions.
"""

import functools
import math
from typing import Literal

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np

from latents.errors import UserError
from latents.nn.attention import attend, attend_one
from latents.nn.condition import labels
from latents.nn.linear import Dense
from latents.nn.mlp import SwiGLU, swiglu_hidden
from latents.nn.norm import RMSNorm
from latents.nn.position import sincos
from latents.nn.remat import Remat, recomputed
from latents.nn.sharding import constrain
from latents.types import Array, Cond, later

NEVER = -1e30  # finite, so that guidance between two of them is no NaN; its probability is 0 exactly
Cache = tuple[tuple[Array, Array], ...]  # per block: keys and values [B,heads,L,F], zeros where not yet written


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
      return Dense(width, use_bias=False, dtype=self.dtype, kernel_init=nn.initializers.normal(0.02))

    self.norm1, self.norm2 = RMSNorm(dtype=self.dtype), RMSNorm(dtype=self.dtype)
    self.qkv, self.proj = linear(3 * self.width), linear(self.width)
    self.mlp = SwiGLU(swiglu_hidden(self.width, self.multiple), dtype=self.dtype)
    self.drop = nn.Dropout(self.dropout)

  def _qkv(self, x: Array) -> tuple[Array, Array, Array]:
    h = self.qkv(self.norm1(x))
    q, k, v = (a.reshape(*h.shape[:-1], self.heads, -1) for a in jnp.split(h, 3, -1))
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
      jax.lax.dynamic_update_slice_in_dim(old, jnp.swapaxes(new, 1, 2).astype(old.dtype), index, 2)
      for old, new in zip(cache, (k, v), strict=True)
    )
    written = jnp.arange(keys.shape[2]) <= index  # slots after `index` hold zeros, not keys
    h = self.proj(attend_one(q, keys, values, written).reshape(x.shape))
    x = x + h
    return x + self.mlp(self.norm2(x)), (keys, values)


class Transformer(nn.Module):
  """tokens [B,L] int32 in 0..vocab-1, cond or None -> logits [B,L,vocab] float32.

  Row i are the logits of token i given the tokens before i: the inputs are shifted here, and the class token
  stands at position 0. Tokens are positions in raster order with the `groups` levels of one position
  innermost (L = positions * groups); each level has its own embedding table. length: the L that is modelled.
  classes: number of labels, label `classes` is the null label and cond None means it.
  position: a learned table, or sines and cosines of the spatial index; plus a learned vector per level.
  multiple: SwiGLU's hidden width is rounded up to it. All logits are 0 at the start.
  layout: grids of a sequence that is grid after grid, each in raster order, coarse to fine (L = the sum of their
  sizes; groups is 1). Then every grid has its own embedding, positions, learned vector and head, and `vocab` may be one
  a grid: logits beyond a grid's own vocabulary are `NEVER`, a probability of 0. () = one sequence.
  places: rows of the table of positions, where tokens say their own (merged tokens, the place of the first code that
  they stand for): row i then knows the place of token i, not i itself. 0 = a token's place is its number.
  Raises UserError where L is not `length`.
  """

  vocab: int | tuple[int, ...]
  width: int
  depth: int
  heads: int
  length: int
  classes: int = 0
  groups: int = 1
  position: Literal["learned", "sincos"] = "learned"
  multiple: int = 256
  dropout: float = 0.0
  remat: Remat = "none"
  dtype: str = "float32"
  layout: tuple[tuple[int, ...], ...] = later(())
  places: int = later(0)

  @property
  def vocabs(self) -> tuple[int, ...]:
    """The number of codes of each grid of the layout, or of the one sequence."""
    grids = max(len(self.layout), 1)
    return (self.vocab,) * grids if isinstance(self.vocab, int) else tuple(self.vocab)

  @property
  def sizes(self) -> tuple[int, ...]:
    """The number of tokens of each grid."""
    return tuple(math.prod(grid) for grid in self.layout) or (self.length,)

  def setup(self) -> None:
    """See the class."""
    self._check_layout()
    if self.length % self.groups:
      raise UserError(f"a length of {self.length} tokens does not divide into {self.groups} levels of codes")
    if self.width % self.heads:
      raise UserError(f"width {self.width} does not divide into {self.heads} heads")
    init = nn.initializers.normal(0.02)
    rows = self.groups * sum(self.vocabs)
    self.embed = nn.Embed(rows, self.width, dtype=self.dtype, embedding_init=init)
    self.label = nn.Embed(self.classes + 1, self.width, dtype=self.dtype, embedding_init=init)
    if self.position == "learned":
      rows = self.places or self.length // self.groups
      self.positions = self.param("positions", init, (rows, self.width), jnp.float32)
    if (levels := max(self.groups, len(self.layout))) > 1:
      self.levels = self.param("levels", init, (levels, self.width), jnp.float32)
    self.drop = nn.Dropout(self.dropout)
    block = recomputed(CausalBlock, self.remat, static=(2,))
    self.blocks = [block(self.width, self.heads, self.multiple, self.dropout, self.dtype) for _ in range(self.depth)]
    self.norm = RMSNorm(dtype=self.dtype)
    head = functools.partial(Dense, use_bias=False, dtype=self.dtype, kernel_init=nn.initializers.zeros)
    if self.layout:
      self.grid_heads = [head(vocab) for vocab in self.vocabs]
    else:
      self.head = head(self.vocabs[0])

  def _check_layout(self) -> None:
    if len(self.vocabs) != max(len(self.layout), 1):
      raise UserError(
        f"the transformer has vocabularies of {self.vocabs} for {max(len(self.layout), 1)} grids of codes"
      )
    if self.layout and (sum(self.sizes) != self.length or self.groups != 1):
      raise UserError(
        f"grids of {self.layout} are {sum(self.sizes)} tokens in one group, not {self.length} in {self.groups}"
      )

    if self.places and (self.layout or self.groups > 1):
      raise UserError("tokens with places of their own are of one grid and one group")

  def _grid_of(self) -> np.ndarray:
    """[L] the grid that each token lies on."""
    return np.repeat(np.arange(len(self.sizes)), self.sizes)

  def _offsets(self) -> Array:
    """[L] int32: the first row of the embedding table that belongs to token i's group, or grid."""
    if self.layout:
      first = np.cumsum((0, *self.vocabs[:-1]))
      return jnp.asarray(first[self._grid_of()], jnp.int32)
    return self.vocabs[0] * (jnp.arange(self.length) % self.groups)

  def _places(self) -> Array:
    """[L,width], or [places,width]: what is added at row i, which says WHICH token row i predicts (its position and its
    level)."""
    if self.layout:
      fixed = lambda: np.concatenate([sincos(grid, self.width) for grid in self.layout])  # noqa: E731
      places = self.positions if self.position == "learned" else jnp.asarray(fixed())
      return places + self.levels[self._grid_of()] if len(self.layout) > 1 else places
    spatial = self.places or self.length // self.groups
    table = self.positions if self.position == "learned" else jnp.asarray(sincos((spatial,), self.width))
    places = jnp.repeat(table, self.groups, 0)
    return places + jnp.tile(self.levels, (spatial, 1)) if self.groups > 1 else places

  @property
  def conditions(self) -> tuple[str, ...]:
    """Names of what it reads of a condition."""
    return ("label",) if self.classes else ()

  def _start(self, cond: Cond | None, batch: int) -> Array:
    return constrain(self.label(labels(cond if self.classes else None, self.classes, batch)))

  def _logits(self, h: Array) -> Array:
    """h [B,L,width] of all rows -> [B,L,the largest vocabulary]."""
    h = self.norm(h)
    if not self.layout:
      return self.head(h).astype(jnp.float32)
    parts = jnp.split(h, np.cumsum(self.sizes)[:-1], 1)
    return jnp.concatenate([self._padded(head(part)) for head, part in zip(self.grid_heads, parts, strict=True)], 1)

  def _padded(self, logits: Array) -> Array:
    pad = [(0, 0)] * (logits.ndim - 1) + [(0, max(self.vocabs) - logits.shape[-1])]
    return jnp.pad(logits.astype(jnp.float32), pad, constant_values=NEVER)

  def _logits_at(self, h: Array, index: Array) -> Array:
    """h [B,width] of row `index` [] -> [B,the largest vocabulary]."""
    h = self.norm(h)
    if not self.layout:
      return self.head(h).astype(jnp.float32)
    return jnp.stack([self._padded(head(h)) for head in self.grid_heads])[jnp.asarray(self._grid_of())[index]]

  def __call__(self, tokens: Array, cond: Cond | None, *, train: bool = False, places: Array | None = None) -> Array:
    """See the class. places: [B,L] of each token, where they have their own."""
    if tokens.ndim != 2 or tokens.shape[1] != self.length:
      raise UserError(f"this transformer models [B,{self.length}] tokens, got {tokens.shape}")
    before = tokens[:, :-1] + self._offsets()[:-1]
    h = jnp.concatenate([self._start(cond, tokens.shape[0])[:, None], self.embed(before)], 1)
    where = self._places()
    if self.places:
      if places is None:
        raise UserError("the transformer reads the places of merged tokens, and there are none: it needs a recode")
      where = where[places]
    h = constrain(self.drop(h + where.astype(h.dtype), deterministic=not train))
    for block in self.blocks:
      h = block(h, train)
    return self._logits(h)

  def cache(self, batch: int) -> Cache:
    """An empty cache for `batch` sequences: static shapes, zeros."""
    shape = (batch, self.heads, self.length, self.width // self.heads)
    return tuple((jnp.zeros(shape, self.dtype), jnp.zeros(shape, self.dtype)) for _ in range(self.depth))

  def step(
    self, token: Array, cond: Cond | None, index: Array, cache: Cache, place: Array | None = None
  ) -> tuple[Array, Cache]:
    """Logits [B,vocab] of token `index` [] given token index-1 (`token` [B]; ignored at index 0), and the cache. place:
    [B] of token `index`, where tokens have their own."""
    before = self.embed(token + self._offsets()[jnp.maximum(index - 1, 0)])
    h = jnp.where(index == 0, self._start(cond, token.shape[0]), before)
    h = (h + self._places()[place if self.places else index].astype(h.dtype))[:, None]
    written = []
    for block, old in zip(self.blocks, cache, strict=True):
      h, new = block.step(h, index, old)
      written.append(new)
    return self._logits_at(h[:, 0], index), tuple(written)
