"""The transformer of next-scale prediction. VAR: Tian et al. 2024, arXiv:2404.02905, section 3.2 and appendix."""

import math
from typing import Any

import flax.linen as nn
import jax.numpy as jnp
import numpy as np

from latents.backbones.dit import zero_dense
from latents.errors import UserError
from latents.nn.attention import attend
from latents.nn.condition import labels
from latents.nn.linear import Dense
from latents.nn.mlp import Mlp
from latents.nn.norm import LayerNorm, modulate, unit
from latents.nn.remat import Remat, recomputed
from latents.nn.sharding import constrain
from latents.types import Array, Cond

Past = tuple[tuple[Array, Array], ...]  # per block: keys and values [B,m,heads,F] of the scales that were passed


class ScaleBlock(nn.Module):
  """x [B,n,width], c [B,width] -> (x, its keys and values [B,m+n,heads,F]): attention and MLP, each with adaLN's shift,
  scale and gate, the identity at the start.

  Queries and keys have length 1, and a head multiplies their cosine by e^s, s learned, log 4 at first, at most log 100.
  past: keys and values before x, which are seen by all. seen: [n,n] bool, who looks at whom within x; None = all.
  drop_path: the share of examples whose branches are left out in training.
  """

  heads: int
  ratio: float = 4.0
  drop_path: float = 0.0
  dtype: str = "float32"

  @nn.compact
  def __call__(
    self, x: Array, c: Array, seen: Array | None, past: tuple[Array, Array] | None, train: bool
  ) -> tuple[Array, tuple[Array, Array]]:
    """See the class."""
    width, init = x.shape[-1], nn.initializers.xavier_uniform()
    modulation = zero_dense(6 * width, self.dtype, "modulation")(nn.silu(c))
    shift1, scale1, gate1, shift2, scale2, gate2 = jnp.split(constrain(modulation)[:, None], 6, -1)
    skip = nn.Dropout(self.drop_path, broadcast_dims=(1, 2), deterministic=not train)
    h = modulate(LayerNorm(dtype=self.dtype, name="norm1")(x), shift1, scale1)
    qkv = Dense(3 * width, dtype=self.dtype, kernel_init=init, name="qkv")(h)
    q, k, v = (a.reshape(*x.shape[:-1], self.heads, -1) for a in jnp.split(qkv, 3, -1))
    heat = self.param("heat", nn.initializers.constant(math.log(4.0)), (self.heads, 1), jnp.float32)
    times = jnp.exp(jnp.minimum(heat, math.log(100.0))) * math.sqrt(q.shape[-1])  # `attend` divides by the root
    q = (unit(q.astype(jnp.float32)) * times).astype(v.dtype)
    k = unit(k.astype(jnp.float32)).astype(v.dtype)
    if past is not None:
      k, v = (jnp.concatenate([old, new], 1) for old, new in zip(past, (k, v), strict=True))
    h = attend(q, k, v, mask=None if seen is None else seen[None, None]).reshape(x.shape)
    x = x + skip(gate1 * Dense(width, dtype=self.dtype, kernel_init=init, name="out")(h))
    h = modulate(LayerNorm(dtype=self.dtype, name="norm2")(x), shift2, scale2)
    return constrain(x + skip(gate2 * Mlp(self.ratio, self.dtype, name="mlp")(h))), (k, v)


class ScaleTransformer(nn.Module):
  """x [B,N,D], cond or None -> logits [B,N,vocab] float32 of the codes of `scales`, grid after grid.

  x are what is known of every place before its scale (`MultiScaleVQ.inputs`); at the first scale the class stands
  instead, whatever x says. Tokens see their own scale and those before. All tokens of a scale are told apart by x,
  learned positions and a learned vector a scale; class modulates every block (adaLN). All logits are 0 at the start,
  and blocks the identity, where the code begins near that; keys have a bias here.
  classes: number of labels, label `classes` is the null label, and cond None means it. drop_path: of the last block; it
  rises from 0 at the first. VAR-d16 to d30: width 64 depth, as many heads as blocks (310M, 600M, 1.0B, 2.0B).
  """

  vocab: int
  width: int
  depth: int
  heads: int
  scales: tuple[tuple[int, ...], ...]
  classes: int = 0
  drop_path: float = 0.0
  remat: Remat = "none"
  dtype: str = "float32"

  @property
  def vocabs(self) -> tuple[int, ...]:
    """The number of codes of each scale."""
    return (self.vocab,) * len(self.scales)

  @property
  def sizes(self) -> tuple[int, ...]:
    """The number of tokens of each scale."""
    return tuple(math.prod(grid) for grid in self.scales)

  @property
  def length(self) -> int:
    """N."""
    return sum(self.sizes)

  @property
  def conditions(self) -> tuple[str, ...]:
    """Names of what it reads of a condition."""
    return ("label",) if self.classes else ()

  def setup(self) -> None:
    """See the class."""
    if self.width % self.heads:
      raise UserError(f"width {self.width} does not divide into {self.heads} heads")
    init = nn.initializers.truncated_normal(math.sqrt(1 / self.width / 3))
    self.label = nn.Embed(self.classes + 1, self.width, dtype=self.dtype, embedding_init=init)
    self.embed = Dense(self.width, dtype=self.dtype, kernel_init=nn.initializers.xavier_uniform())
    self.start = self.param("start", init, (self.sizes[0], self.width), jnp.float32)
    self.positions = self.param("positions", init, (self.length, self.width), jnp.float32)
    self.levels = self.param("levels", init, (len(self.scales), self.width), jnp.float32)
    block, last = recomputed(ScaleBlock, self.remat, static=(5,)), max(self.depth - 1, 1)
    self.blocks = [block(self.heads, drop_path=self.drop_path * i / last, dtype=self.dtype) for i in range(self.depth)]
    self.norm = LayerNorm(dtype=self.dtype)
    self.final_modulation = zero_dense(2 * self.width, self.dtype, "final_modulation")
    self.head = zero_dense(self.vocab, self.dtype, "head")

  def __call__(self, x: Array, cond: Cond | None, *, train: bool = False) -> Array:
    """See the class."""
    if x.ndim != 3 or x.shape[1] != self.length:
      raise UserError(f"this transformer models the {self.length} tokens of {self.scales}, got {x.shape}")
    scale = np.repeat(np.arange(len(self.scales)), self.sizes)
    first = self._entered(x[:, : self.sizes[0]], cond, 0)
    rest = self.embed(x[:, self.sizes[0] :]) + self._places()[self.sizes[0] :].astype(first.dtype)
    seen = jnp.asarray(scale[:, None] >= scale)
    return self._passed(jnp.concatenate([first, rest], 1), cond, seen, None, train)[0]

  def step(self, x: Array, cond: Cond | None, scale: int, past: Past | None) -> tuple[Array, Past]:
    """x [B,n,D] of a scale (from 0), and what the steps before gave -> (its logits [B,n,vocab], the same for the next):
    the rows of the full pass."""
    return self._passed(self._entered(x, cond, scale), cond, None, past, False)

  def _places(self) -> Array:
    return self.positions + self.levels[np.repeat(np.arange(len(self.scales)), self.sizes)]

  def _class(self, cond: Cond | None, batch: int) -> Array:
    return constrain(self.label(labels(cond if self.classes else None, self.classes, batch)))

  def _entered(self, x: Array, cond: Cond | None, scale: int) -> Array:
    """x [B,n,D] of one scale -> [B,n,width]."""
    first = sum(self.sizes[:scale])
    places = self._places()[first : first + self.sizes[scale]]
    h = self.embed(x)  # the first scale's is not used: parameters are made by any pass
    if scale == 0:
      h = self._class(cond, len(x))[:, None] + self.start.astype(h.dtype)
    return constrain(h + places.astype(h.dtype))

  def _passed(self, h: Array, cond: Cond | None, seen: Any, past: Any, train: bool) -> tuple[Array, Past]:
    c, kept = self._class(cond, len(h)), []
    for i, block in enumerate(self.blocks):
      h, own = block(h, c, seen, None if past is None else past[i], train)
      kept.append(own)
    shift, scale = jnp.split(constrain(self.final_modulation(nn.silu(c)))[:, None], 2, -1)
    return self.head(modulate(self.norm(h), shift, scale)).astype(jnp.float32), tuple(kept)


def var(depth: int, vocab: int, scales: tuple[tuple[int, ...], ...], **fields) -> ScaleTransformer:
  """VAR-d{depth}: width 64 depth, stochastic depth up to 0.1 depth / 24."""
  fields = {"drop_path": 0.1 * depth / 24, **fields}
  return ScaleTransformer(vocab, 64 * depth, depth, depth, scales, **fields)
