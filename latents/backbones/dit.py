"""DiT, the diffusion transformer. Peebles & Xie 2023, arXiv:2212.09748, section 3 and table 1."""

from typing import Literal

import flax.linen as nn
import jax.numpy as jnp

from latents.nn.attention import Attention
from latents.nn.condition import TextTokens, labels
from latents.nn.linear import Dense
from latents.nn.mlp import Mlp
from latents.nn.norm import LayerNorm, modulate
from latents.nn.patch import patchify, unpatchify
from latents.nn.position import sincos
from latents.nn.remat import Remat, recomputed
from latents.nn.sharding import constrain
from latents.nn.time import embed_times
from latents.types import Array, Cond, later


def zero_dense(width: int, dtype: str, name: str) -> nn.Dense:
  """A linear layer that gives 0 at the start (adaLN-Zero)."""
  return Dense(width, dtype=dtype, kernel_init=nn.initializers.zeros, name=name)


class Block(nn.Module):
  """x [B,N,width], c [B,width] -> x: attention and MLP, each with adaLN-Zero's shift, scale and gate (fig. 3).

  seen: [B,N] bool, tokens that may be looked at; None = all.

  The identity at the start.
  """

  heads: int
  ratio: float = 4.0
  dtype: str = "float32"

  @nn.compact
  def __call__(self, x: Array, c: Array, seen: Array | None = None) -> Array:
    """See the class."""
    modulation = zero_dense(6 * x.shape[-1], self.dtype, "modulation")(nn.silu(c))
    shift1, scale1, gate1, shift2, scale2, gate2 = jnp.split(constrain(modulation)[:, None], 6, -1)
    h = modulate(LayerNorm(dtype=self.dtype)(x), shift1, scale1)
    x = x + gate1 * Attention(self.heads, dtype=self.dtype, name="attention")(h, seen)
    h = modulate(LayerNorm(dtype=self.dtype)(x), shift2, scale2)
    return constrain(x + gate2 * Mlp(self.ratio, dtype=self.dtype, name="mlp")(h))


class DiT(nn.Module):
  """x [B,*s,D], t [B] in [0,1] (or [B,n]: n times), cond or None -> [B,*s,out] float32; exactly 0 at the start.

  classes: number of labels; label `classes` is the null label, for rows that are dropped and where cond is None; 0 = no
  labels are read. text: (L, E) of texts that are read, () = none: their tokens stand before those of x in every block,
  and their mean is added to the time. out: output channels, None = D (2 D for a learned sigma). patch: tokens are
  patch^n cells of the grid *s, which has any number of axes. position: fixed sine-cosine, no parameters. remat: what
  the backward pass recomputes (`nn/remat.py`). Raises UserError where the grid does not divide by the patch.
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

  @property
  def conditions(self) -> tuple[str, ...]:
    """Names of what it reads of a condition."""
    return (*(("label",) if self.classes else ()), *(("text", "text_mask") if self.text else ()))

  @nn.compact
  def __call__(self, x: Array, t: Array, cond: Cond | None, *, train: bool = False) -> Array:
    """See the class."""
    del train  # no dropout
    out = (self.out or x.shape[-1]) * self.patch ** (x.ndim - 2)
    tokens, grid = patchify(x, self.patch)
    init = nn.initializers.xavier_uniform()
    h = Dense(self.width, dtype=self.dtype, kernel_init=init, name="embed")(tokens)
    if self.position == "sincos":
      h = h + sincos(grid, self.width).astype(self.dtype)
    c = embed_times(t, self.width, self.dtype)
    if self.classes:
      label = labels(cond, self.classes, t.shape[0])
      init = nn.initializers.normal(0.02)
      c = c + nn.Embed(self.classes + 1, self.width, dtype=self.dtype, embedding_init=init, name="label")(label)
    seen = None
    if self.text:
      length, size = self.text
      words, seen = TextTokens(self.width, length, self.dtype, name="text_tokens")(cond, size, t.shape[0])
      share = seen / jnp.maximum(seen.sum(1, keepdims=True), 1)
      c = c + Dense(self.width, dtype=self.dtype, name="text_mean")(jnp.einsum("bl,blw->bw", share, words))
      h = jnp.concatenate([words, h], 1)
      seen = jnp.concatenate([seen, jnp.ones((t.shape[0], tokens.shape[1]), bool)], 1)
    h, c = constrain(h), constrain(c)
    block = recomputed(Block, self.remat)
    for i in range(self.depth):
      h = block(self.heads, self.mlp_ratio, self.dtype, name=f"blocks_{i}")(h, c, seen)
    h = h[:, h.shape[1] - tokens.shape[1] :]
    modulation = zero_dense(2 * self.width, self.dtype, "final_modulation")(nn.silu(c))
    shift, scale = jnp.split(constrain(modulation)[:, None], 2, -1)
    h = modulate(LayerNorm(dtype=self.dtype)(h), shift, scale)
    h = zero_dense(out, self.dtype, "final")(h).astype(jnp.float32)
    return unpatchify(h, grid, self.patch)


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
