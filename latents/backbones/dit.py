"""DiT, the diffusion transformer. Peebles & Xie 2023, arXiv:2212.09748, section 3 and table 1."""

import itertools
from typing import Any, Literal

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np

from latents.errors import UserError
from latents.nn.attention import Attention
from latents.nn.condition import TextTokens, embed_labels
from latents.nn.linear import Dense
from latents.nn.mlp import Mlp, MlpKind
from latents.nn.norm import NormKind, modulate, norm
from latents.nn.patch import patchify, unpatchify
from latents.nn.position import rotary, sincos
from latents.nn.remat import Remat, recomputed
from latents.nn.sharding import constrain
from latents.nn.time import Clock, embed_times
from latents.types import Array, Cond, later


def zero_dense(width: int, dtype: str, name: str) -> nn.Dense:
  """A linear layer that gives 0 at the start (adaLN-Zero)."""
  return Dense(width, dtype=dtype, kernel_init=nn.initializers.zeros, name=name)


class Block(nn.Module):
  """x [B,N,width], c [B,width] -> x: attention and MLP, each with adaLN-Zero's shift, scale and gate (fig. 3).

  seen: [B,N] bool, tokens that may be looked at; None = all. angles [N,F/2]: rotary positions (`position.rotary`).
  norm, mlp, qk_norm: see `DiT`. dropout: of what attention gives and of the MLP's hidden units.
  The identity at the start.
  """

  heads: int
  ratio: float = 4.0
  dtype: str = "float32"
  norm: NormKind = "layer"
  mlp: MlpKind = "gelu"
  qk_norm: bool = False
  dropout: float = 0.0

  @nn.compact
  def __call__(
    self, x: Array, c: Array, seen: Array | None = None, angles: Array | None = None, train: bool = False
  ) -> Array:
    """See the class."""
    modulation = zero_dense(6 * x.shape[-1], self.dtype, "modulation")(nn.silu(c))
    shift1, scale1, gate1, shift2, scale2, gate2 = jnp.split(constrain(modulation)[:, None], 6, -1)
    h = modulate(norm(self.norm, self.dtype, "norm1")(x), shift1, scale1)
    h = Attention(self.heads, dtype=self.dtype, qk_norm=self.qk_norm, name="attention")(h, seen, angles)
    if self.dropout:
      h = nn.Dropout(self.dropout, deterministic=not train)(h)
    x = x + gate1 * h
    h = modulate(norm(self.norm, self.dtype, "norm2")(x), shift2, scale2)
    h = Mlp(self.ratio, self.dtype, self.mlp, self.dropout, name="mlp")(h, train=train)
    return constrain(x + gate2 * h)


class DiT(nn.Module):
  """x [B,*s,D], t [B] in [0,1] (or [B,n]: n times), cond or None -> [B,*s,out] float32; exactly 0 at the start.

  classes: number of labels; label `classes` is the null label, for rows that are dropped and where cond is None; 0 = no
  labels are read. text: (L, E) of texts that are read, () = none: their tokens stand before those of x in every block,
  and their mean is added to the time. out: output channels, None = D (2 D for a learned sigma). patch: tokens are
  patch^n cells of the grid *s, which has any number of axes. position: fixed sine-cosine, no parameters. remat: what
  the backward pass recomputes (`nn/remat.py`). Raises UserError where the grid does not divide by the patch.

  LightningDiT (Yao & Wang 2025, arXiv:2501.01423) has norm="rms", mlp="swiglu" (`Mlp`) and rope=True: queries and keys
  are turned by their place on the grid, beside `position` or instead of it; other tokens do not turn. qk_norm: see
  `Attention`. JiT (Li & He 2025, arXiv:2511.13720) has all of these, and bottleneck: patches through a linear layer of
  so many units first, 0 = none; context: so many tokens of the class, each with a learned position, which stand before
  all others from block `context_from` on; dropout (`Block`) in the middle half of the blocks. Raises UserError for a
  context without classes.

  scan: blocks that are alike are one block in the program, which a loop runs over their stacked parameters: it compiles
  in a time that does not grow with the depth, and costs a copy of the parameters. Same parameters, same function, other
  random numbers of dropout; no loss can read a block's output. clock (a, b): a t + b is what is embedded of t. spare:
  the last layer gives as many channels again, which nobody reads (SiT's checkpoints).
  """

  depth: int
  width: int
  heads: int
  patch: int = 2
  classes: int = 0
  out: int | None = None
  mlp_ratio: float = 4.0
  position: Literal["sincos", "none"] = "sincos"
  remat: Remat = "none"
  dtype: str = "float32"
  text: tuple[int, ...] = later(())
  norm: NormKind = later("layer")
  mlp: Literal["gelu", "swiglu"] = later("gelu")
  rope: bool = later(False)
  qk_norm: bool = later(False)
  bottleneck: int = later(0)
  context: int = later(0)
  context_from: int = later(0)
  dropout: float = later(0.0)
  scan: bool = later(False, address=False)
  clock: Clock = later((1000.0, 0.0))
  spare: bool = later(False)

  @property
  def conditions(self) -> tuple[str, ...]:
    """Names of what it reads of a condition."""
    return (*(("label",) if self.classes else ()), *(("text", "text_mask") if self.text else ()))

  def _embed(self, x: Array) -> tuple[Array, tuple[int, ...]]:
    """x -> tokens [B,N,width] and their grid."""
    init = nn.initializers.xavier_uniform()
    tokens, grid = patchify(x, self.patch)
    if self.bottleneck:
      tokens = Dense(self.bottleneck, use_bias=False, dtype=self.dtype, kernel_init=init, name="squeeze")(tokens)
    h = Dense(self.width, dtype=self.dtype, kernel_init=init, name="embed")(tokens)
    if self.position == "sincos":
      h = h + sincos(grid, self.width).astype(self.dtype)
    return h, grid

  def _context(self, label: Array) -> Array:
    """[B,width] of the class -> its tokens [B,context,width]."""
    places = self.param("context_places", nn.initializers.normal(0.02), (self.context, self.width), jnp.float32)
    return constrain(label[:, None] + places.astype(self.dtype))

  def _stretches(self) -> list[int]:
    """Where a stretch of blocks begins that are alike and see as many tokens; `depth` is the last."""
    borders = {0, self.depth, *((self.context_from,) if self.context else ())}
    if self.dropout:
      borders |= {self.depth // 4, self.depth // 4 * 3}
    return sorted(i for i in borders if i <= self.depth)

  def _block(self, i: int, **place: Any) -> nn.Module:
    middle = self.depth // 4 <= i < self.depth // 4 * 3
    block = recomputed(Block, self.remat, static=(5,))
    drop = self.dropout if middle else 0.0
    return block(self.heads, self.mlp_ratio, self.dtype, self.norm, self.mlp, self.qk_norm, drop, **place)

  def _blocks(self, i: int, end: int, h: Array, *given: Any) -> Array:
    """Blocks i to end - 1, which are alike: one after the other, or as one that a loop runs."""
    if not self.scan or self.is_initializing():
      for j in range(i, end):
        h = self._block(j, name=f"blocks_{j}")(h, *given)
      return h
    params = self.variables["params"]
    stacked = jax.tree.map(lambda *of: jnp.stack(of), *(params[f"blocks_{j}"] for j in range(i, end)))
    block = self._block(i, parent=None)
    rngs = {"dropout": self.make_rng("dropout")} if self.dropout and self.has_rng("dropout") else {}

    def run(h: Array, one: Any) -> tuple[Array, None]:
      own, j = one
      keys = {name: jax.random.fold_in(key, j) for name, key in rngs.items()}
      return block.apply({"params": own}, h, *given, rngs=keys), None  # pyright: ignore[reportReturnType]

    return jax.lax.scan(run, h, (stacked, jnp.arange(end - i)))[0]

  @nn.compact
  def __call__(self, x: Array, t: Array, cond: Cond | None, *, train: bool = False) -> Array:
    """See the class."""
    if self.context and not self.classes:
      raise UserError(f"{self.context} tokens of the class need a backbone with classes > 0")
    batch = t.shape[0]
    h, grid = self._embed(x)
    count = h.shape[1]
    angles = rotary(grid, self.width // self.heads) if self.rope else None
    c = embed_times(t, self.width, self.dtype, clock=self.clock)
    label = embed_labels(cond, self.classes, batch, self.width, self.dtype) if self.classes else None
    c = c if label is None else c + label
    seen = None
    if self.text:
      length, size = self.text
      words, mask = TextTokens(self.width, length, self.dtype, name="text_tokens")(cond, size, batch)
      share = mask / jnp.maximum(mask.sum(1, keepdims=True), 1)
      c = c + Dense(self.width, dtype=self.dtype, name="text_mean")(jnp.einsum("bl,blw->bw", share, words))
      h, seen, angles = before(words, h, seen, angles, mask)
    h, c = constrain(h), constrain(c)
    for i, end in itertools.pairwise(self._stretches()):
      if self.context and i == self.context_from:
        h, seen, angles = before(self._context(label), h, seen, angles)
      h = self._blocks(i, end, h, c, seen, angles, train)
    h = h[:, h.shape[1] - count :]
    modulation = zero_dense(2 * self.width, self.dtype, "final_modulation")(nn.silu(c))
    shift, scale = jnp.split(constrain(modulation)[:, None], 2, -1)
    h = modulate(norm(self.norm, self.dtype, "final_norm")(h), shift, scale)
    out = self.out or x.shape[-1]
    cells = self.patch ** (x.ndim - 2) * (2 if self.spare else 1)
    h = zero_dense(out * cells, self.dtype, "final")(h).astype(jnp.float32)
    return unpatchify(h, grid, self.patch)[..., :out]


def before(
  extra: Array, h: Array, seen: Array | None, angles: Array | None, mask: Array | None = None
) -> tuple[Array, Any, Any]:
  """Tokens [B,L,width] in front of h [B,N,width]: not turned, and seen as `mask` [B,L] says (None = all)."""
  more = extra.shape[1]
  if mask is not None or seen is not None:
    masks = zip((extra, h), (mask, seen), strict=True)
    seen = jnp.concatenate([jnp.ones(a.shape[:2], bool) if own is None else own for a, own in masks], 1)
  if angles is not None:
    angles = np.pad(angles, ((more, 0), (0, 0)))
  return jnp.concatenate([extra, h], 1), seen, angles


def dit_s(patch: int = 2, **fields) -> DiT:
  """DiT-S: 12 blocks of width 384, 6 heads (table 1; heads 384 / 64)."""
  return DiT(depth=12, width=384, heads=6, patch=patch, **fields)


def dit_b(patch: int = 2, **fields) -> DiT:
  """DiT-B: 12 blocks of width 768, 12 heads."""
  return DiT(depth=12, width=768, heads=12, patch=patch, **fields)


def dit_l(patch: int = 2, **fields) -> DiT:
  """DiT-L: 24 blocks of width 1024, 16 heads."""
  return DiT(depth=24, width=1024, heads=16, patch=patch, **fields)


def dit_xl(patch: int = 2, **fields) -> DiT:
  """DiT-XL: 28 blocks of width 1152, 16 heads."""
  return DiT(depth=28, width=1152, heads=16, patch=patch, **fields)
