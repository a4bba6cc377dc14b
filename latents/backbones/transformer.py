"""Decoder-only transformer over tokens, with a key-value cache.

LlamaGen, Sun et al. 2024, arXiv:2406.06525 (RMSNorm, SwiGLU, zero-initialised head, class token first), or GPT-2's
blocks, with learned, sine-cosine or rotary positions.
"""

import functools
import math
from typing import Literal

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np

from latents.backbones.causal import Cache, CausalBlock, Kind, empty, final_norm
from latents.errors import UserError
from latents.nn.condition import labels, texts
from latents.nn.linear import Dense
from latents.nn.position import rotary, sincos
from latents.nn.remat import Remat, recomputed
from latents.nn.sharding import constrain
from latents.types import Array, Cond, later

NEVER = -1e30  # finite, so that guidance between two of them is no NaN; its probability is 0 exactly


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
  they stand for; tokens in another order): row i then knows the place of token i, not i itself. 0 = a token's place is
  its number. told: each row also knows the place of the token that it reads, by a second table, "read" (RAR: Yu et al.
  2024, arXiv:2411.00776, has both): what an order that is no fixed one needs.
  kind: of the blocks, see `CausalBlock`. label_tokens: a label is the token of its number, read by the tokens' own
  table, and the null label token 0 (taming-transformers'; a null label that no label is needs a table of labels).
  position "rotary": queries and keys turn by the place of the token that a row READS, on `grid` (as LlamaGen's do),
  with nothing added; rows in front of the tokens do not turn, or are without queries and keys where `blind`, as
  LlamaGen's tables of zeros have it.
  text: (L,E) of embeddings that a condition brings ("text", "text_mask"): L rows in front of all, by a two-layer
  projection; where a mask hides them nobody looks.
  Raises UserError where L is not `length`.
  """

  vocab: int | tuple[int, ...]
  width: int
  depth: int
  heads: int
  length: int
  classes: int = 0
  groups: int = 1
  position: Literal["learned", "sincos", "rotary"] = "learned"
  multiple: int = 256
  dropout: float = 0.0
  remat: Remat = "none"
  dtype: str = "float32"
  layout: tuple[tuple[int, ...], ...] = later(())
  places: int = later(0)
  kind: Kind = later("llama")
  grid: tuple[int, ...] = later(())
  blind: bool = later(False)
  text: tuple[int, int] | None = later(None)
  told: bool = later(False)
  label_tokens: bool = later(False)

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
    if not self.label_tokens:
      self.label = nn.Embed(self.classes + 1, self.width, dtype=self.dtype, embedding_init=init)
    if self.position == "learned":
      rows = self.places or self.length // self.groups
      self.positions = self.param("positions", init, (rows, self.width), jnp.float32)
    if self.told:
      self.read = self.param("read", init, (self.places, self.width), jnp.float32)
    if self.text:
      self.text_in, self.text_out = (Dense(self.width, dtype=self.dtype, kernel_init=init) for _ in range(2))
    if (levels := max(self.groups, len(self.layout))) > 1:
      self.levels = self.param("levels", init, (levels, self.width), jnp.float32)
    self.drop = nn.Dropout(self.dropout)
    block = recomputed(CausalBlock, self.remat, static=(2,))
    sizes = self.width, self.heads, self.multiple, self.dropout, self.dtype, self.kind
    self.blocks = [block(*sizes) for _ in range(self.depth)]
    self.norm = final_norm(self.kind, self.dtype)
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
    if self.told and not self.places:
      raise UserError("a transformer that is told the place of what it reads needs `places`, the number of them")
    if self.position == "rotary":
      if self.layout or self.places:
        raise UserError("rotary positions are of one grid in raster order")
      if math.prod(self.grid or (self.length // self.groups,)) * self.groups != self.length:
        raise UserError(f"rotary positions on a grid of {self.grid} are not of {self.length} tokens")

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
    if self.position == "rotary":
      table = jnp.zeros((spatial, self.width))
    else:
      table = self.positions if self.position == "learned" else jnp.asarray(sincos((spatial,), self.width))
    places = jnp.repeat(table, self.groups, 0)
    return places + jnp.tile(self.levels, (spatial, 1)) if self.groups > 1 else places

  @property
  def conditions(self) -> tuple[str, ...]:
    """Names of what it reads of a condition."""
    return (("label",) if self.classes else ()) + (("text",) if self.text else ())

  def _start(self, cond: Cond | None, batch: int) -> Array:
    given = labels(cond if self.classes else None, self.classes, batch)
    return constrain(self.embed(given % max(self.classes, 1)) if self.label_tokens else self.label(given))

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

  @property
  def front(self) -> int:
    """Rows in front of those that foretell tokens."""
    return self.text[0] if self.text else 0

  def _turns(self) -> tuple[Array | None, Array | None]:
    """(angles [front+L,F/2], blind [front+L]) of all rows, or None where nothing turns."""
    if self.position != "rotary":
      return None, None
    turns = np.repeat(rotary(self.grid or (self.length // self.groups,), self.width // self.heads), self.groups, 0)
    front = self.front + 1
    angles = np.concatenate([np.zeros((front, turns.shape[1]), turns.dtype), turns])[: self.front + self.length]
    return jnp.asarray(angles), jnp.arange(len(angles)) < front if self.blind else None

  def _text(self, cond: Cond | None, batch: int) -> tuple[Array | None, Array | None]:
    """(rows [B,front,width], seen [B,front+L]) of the text, or None where none is read."""
    if not self.text:
      return None, None
    text, mask = texts(cond, self.text, batch)
    rows = self.text_out(nn.gelu(self.text_in(text.astype(self.dtype))))
    return constrain(rows), jnp.concatenate([mask, jnp.ones((batch, self.length), bool)], 1)

  def __call__(self, tokens: Array, cond: Cond | None, *, train: bool = False, places: Array | None = None) -> Array:
    """See the class. places: [B,L] of each token, where they have their own."""
    if tokens.ndim != 2 or tokens.shape[1] != self.length:
      raise UserError(f"this transformer models [B,{self.length}] tokens, got {tokens.shape}")
    batch = tokens.shape[0]
    before = tokens[:, :-1] + self._offsets()[:-1]
    h = jnp.concatenate([self._start(cond, batch)[:, None], self.embed(before)], 1)
    where = self._places()
    if self.places:
      if places is None:
        raise UserError("the transformer reads the places of merged tokens, and there are none: it needs a recode")
      where = where[places]
      if self.told:
        where = where.at[:, 1:].add(self.read[places[:, :-1]])
    h = self.drop(h + where.astype(h.dtype), deterministic=not train)
    text, seen = self._text(cond, batch)
    h = constrain(h if text is None else jnp.concatenate([text, h], 1))
    angles, blind = self._turns()
    for block in self.blocks:
      h = block(h, train, angles, blind, seen)
    return self._logits(h[:, self.front :])

  def cache(self, batch: int, cond: Cond | None = None) -> Cache:
    """The cache of `batch` sequences before their first token: static shapes; of a text its keys and values, the rest
    zeros."""
    made = empty(self.depth, batch, self.heads, self.front + self.length, self.width, self.dtype)
    h, seen = self._text(cond, batch)
    if h is None or seen is None:
      return made
    angles, blind = (None if a is None else a[: self.front] for a in self._turns())
    filled = []
    for block, old in zip(self.blocks, made, strict=True):
      h, new = block.kept(h, False, angles, blind, seen[:, : self.front])
      filled.append(tuple(o.at[:, :, : self.front].set(n.astype(o.dtype)) for o, n in zip(old, new, strict=True)))
    return tuple(filled)

  def step(
    self, token: Array, cond: Cond | None, index: Array, cache: Cache, place: Array | None = None
  ) -> tuple[Array, Cache]:
    """Logits [B,vocab] of token `index` [] given token index-1 (`token` [B]; ignored at index 0), and the cache. place:
    [B] of token `index`, where tokens have their own; [B,2], of token index-1 and of it, where it is `told`."""
    before = self.embed(token + self._offsets()[jnp.maximum(index - 1, 0)])
    h = jnp.where(index == 0, self._start(cond, token.shape[0]), before)
    if self.told:
      assert place is not None
      h = h + jnp.where(index == 0, 0, self.read[place[:, 0]]).astype(h.dtype)
      place = place[:, 1]
    h = (h + self._places()[place if self.places else index].astype(h.dtype))[:, None]
    seen = self._text(cond, token.shape[0])[1]
    row = index + self.front
    angles, blind = (None if a is None else jax.lax.dynamic_slice_in_dim(a, row, 1) for a in self._turns())
    written = []
    for block, old in zip(self.blocks, cache, strict=True):
      h, new = block.step(h, row, old, angles, blind, seen)
      written.append(new)
    return self._logits_at(h[:, 0], index), tuple(written)
