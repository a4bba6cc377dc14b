"""Two transformers for codes of several levels: over positions, and over the levels of one. RQ-Transformer: Lee, Kim,
Kim, Cho, Han 2022, arXiv:2203.01941."""

from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp

from latents.backbones.causal import CausalBlock, Kind, empty, final_norm
from latents.backbones.tokens import OneVocabulary
from latents.errors import UserError
from latents.nn.condition import labels
from latents.nn.remat import Remat, recomputed
from latents.nn.sharding import constrain
from latents.types import Array, Cond


class RQTransformer(OneVocabulary):
  """tokens [B,P*G] in 0..vocab-1 (levels innermost), cond or None -> logits [B,P*G,vocab] float32.

  Section 3.2: a position is read as the sum of its codes' vectors (and the label in front of all); `depth` blocks over
  positions give a context; `levels_depth` blocks over a position's levels read it at level 0, and at level d the sum of
  the vectors of the codes before d, so a long sequence costs P + G, not P * G, positions of attention.
  length: P * G; groups: G. shared: one codebook for all levels, so one table of vectors and one head (the paper's);
  else a table and a head a level. dropout on both branches. All logits are 0 at the start.
  """

  vocab: int
  width: int
  depth: int
  levels_depth: int
  heads: int
  length: int
  groups: int
  classes: int = 0
  shared: bool = False
  kind: Kind = "gpt"
  multiple: int = 256
  dropout: float = 0.0
  remat: Remat = "none"
  dtype: str = "float32"

  def setup(self) -> None:
    """See the class."""
    if self.length % self.groups:
      raise UserError(f"a length of {self.length} tokens does not divide into {self.groups} levels of codes")
    if self.width % self.heads:
      raise UserError(f"width {self.width} does not divide into {self.heads} heads")
    init = nn.initializers.normal(0.02)
    tables = 1 if self.shared else self.groups
    self.embed = nn.Embed(tables * self.vocab, self.width, dtype=self.dtype, embedding_init=init)
    self.label = nn.Embed(self.classes + 1, self.width, dtype=self.dtype, embedding_init=init)
    self.positions = self.param("positions", init, (self.length // self.groups, self.width), jnp.float32)
    self.levels = self.param("levels", init, (self.groups, self.width), jnp.float32)
    self.drop = nn.Dropout(self.dropout)
    block = recomputed(CausalBlock, self.remat, static=(2,))
    sizes = self.width, self.heads, self.multiple, self.dropout, self.dtype, self.kind
    self.blocks = [block(*sizes) for _ in range(self.depth)]
    self.level_blocks = [block(*sizes) for _ in range(self.levels_depth)]
    self.norm = final_norm(self.kind, self.dtype)
    shape = (tables, self.width, self.vocab)
    self.head = self.param("head", nn.initializers.zeros, shape, jnp.float32)

  def _start(self, cond: Cond | None, batch: int) -> Array:
    return constrain(self.label(labels(cond if self.classes else None, self.classes, batch)))

  def _vectors(self, codes: Array, level: Any) -> Array:
    """Codes of a level [] or of levels [G] -> their vectors."""
    return self.embed(codes if self.shared else codes + level * self.vocab)

  def _logits(self, h: Array, level: Any = None) -> Array:
    """[...,G,width] of all levels, or [...,width] of one -> logits."""
    h, head = self.norm(h), self.head.astype(self.dtype)
    if self.shared:
      return (h @ head[0]).astype(jnp.float32)
    if level is None:
      return jnp.einsum("...gw,gwv->...gv", h, head).astype(jnp.float32)
    return (h @ jax.lax.dynamic_index_in_dim(head, level, 0, keepdims=False)).astype(jnp.float32)

  def __call__(self, tokens: Array, cond: Cond | None, *, train: bool = False) -> Array:
    """See the class."""
    if tokens.ndim != 2 or tokens.shape[1] != self.length:
      raise UserError(f"this transformer models [B,{self.length}] tokens, got {tokens.shape}")
    batch, places = tokens.shape[0], self.length // self.groups
    vectors = self._vectors(tokens.reshape(batch, places, self.groups), jnp.arange(self.groups))
    h = jnp.concatenate([self._start(cond, batch)[:, None], vectors.sum(2)[:, :-1]], 1)
    h = constrain(self.drop(h + self.positions.astype(h.dtype), deterministic=not train))
    for block in self.blocks:
      h = block(h, train)
    h = jnp.concatenate([h[:, :, None], jnp.cumsum(vectors, 2)[:, :, :-1]], 2)
    h = (h + self.levels.astype(h.dtype)).reshape(batch * places, self.groups, self.width)
    for block in self.level_blocks:
      h = block(h, train)
    return self._logits(h).reshape(batch, self.length, self.vocab)

  def cache(self, batch: int, cond: Cond | None = None) -> Any:
    """What a step carries: keys and values over positions and over levels, the context of this position [B,width], the
    sum of the vectors of its codes so far [B,width]."""
    positions = empty(self.depth, batch, self.heads, self.length // self.groups, self.width, self.dtype)
    levels = empty(self.levels_depth, batch, self.heads, self.groups, self.width, self.dtype)
    return positions, levels, jnp.zeros((batch, self.width), self.dtype), jnp.zeros((batch, self.width), self.dtype)

  def step(
    self, token: Array, cond: Cond | None, index: Array, cache: Any, place: Array | None = None
  ) -> tuple[Array, Any]:
    """Logits [B,vocab] of token `index` [] given token index-1 (`token` [B]; ignored at index 0), and the cache."""
    positions, levels, context, total = cache
    level, at = index % self.groups, index // self.groups
    total = jnp.where(index == 0, 0, total + self._vectors(token, (index - 1) % self.groups))
    first = level == 0
    row = jax.lax.dynamic_index_in_dim(self.positions, at, 0, keepdims=False)

    def forward(positions: Any) -> tuple[Array, Any]:
      h = jnp.where(index == 0, self._start(cond, token.shape[0]), total) + row.astype(total.dtype)
      h, written = h[:, None], []
      for block, old in zip(self.blocks, positions, strict=True):
        h, new = block.step(h, at, old)
        written.append(new)
      return h[:, 0], tuple(written)

    context, positions = jax.lax.cond(first, forward, lambda kept: (context, kept), positions)
    total = jnp.where(first, 0, total)
    place_of = jax.lax.dynamic_index_in_dim(self.levels, level, 0, keepdims=False)
    h, written = (jnp.where(first, context, total) + place_of.astype(total.dtype))[:, None], []
    for block, old in zip(self.level_blocks, levels, strict=True):
      h, new = block.step(h, level, old)  # slots beyond this level hold an earlier position's: nobody looks at them
      written.append(new)
    return self._logits(h[:, 0], level), (positions, tuple(written), context, total)
