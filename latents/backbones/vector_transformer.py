"""The causal transformer over vectors in place of tokens. GIVT: Tschannen, Eastwood, Mentzer 2023, arXiv:2312.02116."""

import flax.linen as nn
import jax
import jax.numpy as jnp

from latents.backbones.causal import Cache, CausalBlock, Kind, empty, final_norm
from latents.errors import UserError
from latents.nn.condition import labels
from latents.nn.linear import Dense
from latents.nn.remat import Remat, recomputed
from latents.nn.sharding import constrain
from latents.types import Array, Cond


class VectorTransformer(nn.Module):
  """x [B,L,width_in] float32, cond or None -> [B,L,out] float32: row i given the elements before i.

  Inputs are shifted here; the label stands in front; a learned vector a place. All outputs are 0 at the start.
  kind: of the blocks (`CausalBlock`). Raises UserError where L or the width of an element is another.
  """

  width: int
  depth: int
  heads: int
  length: int
  width_in: int
  out: int
  classes: int = 0
  kind: Kind = "gpt"
  multiple: int = 256
  dropout: float = 0.0
  remat: Remat = "none"
  dtype: str = "float32"

  def setup(self) -> None:
    """See the class."""
    if self.width % self.heads:
      raise UserError(f"width {self.width} does not divide into {self.heads} heads")
    init = nn.initializers.normal(0.02)
    self.embed = Dense(self.width, dtype=self.dtype, kernel_init=init)
    self.label = nn.Embed(self.classes + 1, self.width, dtype=self.dtype, embedding_init=init)
    self.positions = self.param("positions", init, (self.length, self.width), jnp.float32)
    self.drop = nn.Dropout(self.dropout)
    block = recomputed(CausalBlock, self.remat, static=(2,))
    sizes = self.width, self.heads, self.multiple, self.dropout, self.dtype, self.kind
    self.blocks = [block(*sizes) for _ in range(self.depth)]
    self.norm = final_norm(self.kind, self.dtype)
    self.head = Dense(self.out, kernel_init=nn.initializers.zeros)

  @property
  def conditions(self) -> tuple[str, ...]:
    """Names of what it reads of a condition."""
    return ("label",) if self.classes else ()

  def _start(self, cond: Cond | None, batch: int) -> Array:
    return constrain(self.label(labels(cond if self.classes else None, self.classes, batch)))

  def __call__(self, x: Array, cond: Cond | None, *, train: bool = False) -> Array:
    """See the class."""
    if x.shape[1:] != (self.length, self.width_in):
      raise UserError(f"this transformer models {self.length} elements of {self.width_in} numbers, got {x.shape[1:]}")
    h = jnp.concatenate([self._start(cond, x.shape[0])[:, None], self.embed(x[:, :-1])], 1)
    h = constrain(self.drop(h + self.positions.astype(h.dtype), deterministic=not train))
    for block in self.blocks:
      h = block(h, train)
    return self.head(self.norm(h)).astype(jnp.float32)

  def cache(self, batch: int, cond: Cond | None = None) -> Cache:
    """An empty cache for `batch` sequences."""
    return empty(self.depth, batch, self.heads, self.length, self.width, self.dtype)

  def step(self, x: Array, cond: Cond | None, index: Array, cache: Cache) -> tuple[Array, Cache]:
    """x [B,width_in], element index-1 (ignored at index 0) -> ([B,out] of element `index` [], the cache)."""
    h = jnp.where(index == 0, self._start(cond, x.shape[0]), self.embed(x))
    h = (h + jax.lax.dynamic_index_in_dim(self.positions, index, 0, keepdims=False).astype(h.dtype))[:, None]
    written = []
    for block, old in zip(self.blocks, cache, strict=True):
      h, new = block.step(h, index, old)
      written.append(new)
    return self.head(self.norm(h))[:, 0].astype(jnp.float32), tuple(written)
