"""The block of causal transformers, with a key-value cache."""

from typing import Literal

import flax.linen as nn
import jax
import jax.numpy as jnp

from latents.nn.attention import attend, attend_one
from latents.nn.linear import Dense
from latents.nn.mlp import SwiGLU, swiglu_hidden
from latents.nn.norm import RMSNorm
from latents.nn.position import turn
from latents.nn.sharding import constrain
from latents.types import Array, later

Kept = tuple[Array, Array]  # a block's keys and values [B,heads,L,F], zeros where not yet written
Cache = tuple[Kept, ...]
Kind = Literal["llama", "gpt"]


class Gelu(nn.Module):
  """[...,C] -> same shape: GPT-2's feed-forward layer, 4 C hidden units, biases, the exact GELU."""

  dtype: str = "float32"

  @nn.compact
  def __call__(self, x: Array) -> Array:
    """See the class."""
    init = nn.initializers.normal(0.02)
    h = Dense(4 * x.shape[-1], dtype=self.dtype, kernel_init=init, name="up")(x)
    return Dense(x.shape[-1], dtype=self.dtype, kernel_init=init, name="down")(nn.gelu(h, approximate=False))


def final_norm(kind: Kind, dtype: str) -> nn.Module:
  """The norm of a kind of block, and behind the last one."""
  return RMSNorm(dtype=dtype) if kind == "llama" else nn.LayerNorm(epsilon=1e-5, dtype=jnp.dtype(dtype))


class CausalBlock(nn.Module):
  """[B,L,width] -> same shape: pre-norm causal attention and a feed-forward layer, dropout on both branches.

  kind: "llama", RMSNorm and SwiGLU, no biases (LlamaGen: Sun et al. 2024, arXiv:2406.06525); "gpt", LayerNorm, GELU and
  biases (GPT-2, as in taming-transformers: Esser et al. 2020, arXiv:2012.09841).
  angles [L,F/2]: rotary positions; blind [L] bool: rows whose queries and keys are 0. seen [B,L] bool: keys that may be
  looked at at all.
  """

  width: int
  heads: int
  multiple: int = 256
  dropout: float = 0.0
  dtype: str = "float32"
  kind: Kind = later("llama")

  def setup(self) -> None:
    """See the class."""

    def linear(width: int) -> nn.Dense:
      init = nn.initializers.normal(0.02)
      return Dense(width, use_bias=self.kind == "gpt", dtype=self.dtype, kernel_init=init)

    self.norm1, self.norm2 = final_norm(self.kind, self.dtype), final_norm(self.kind, self.dtype)
    self.qkv, self.proj = linear(3 * self.width), linear(self.width)
    llama = self.kind == "llama"
    self.mlp = SwiGLU(swiglu_hidden(self.width, self.multiple), dtype=self.dtype) if llama else Gelu(self.dtype)
    self.drop = nn.Dropout(self.dropout)

  def _qkv(self, x: Array, angles: Array | None, blind: Array | None) -> tuple[Array, Array, Array]:
    h = self.qkv(self.norm1(x))
    q, k, v = (a.reshape(*h.shape[:-1], self.heads, -1) for a in jnp.split(h, 3, -1))
    if angles is not None:
      q, k = turn(q, angles), turn(k, angles)
    if blind is not None:
      q, k = (jnp.where(blind[:, None, None], 0, a) for a in (q, k))
    return q, k, v

  def __call__(
    self, x: Array, train: bool, angles: Array | None = None, blind: Array | None = None, seen: Array | None = None
  ) -> Array:
    """See the class."""
    return self.kept(x, train, angles, blind, seen)[0]

  def kept(
    self, x: Array, train: bool, angles: Array | None = None, blind: Array | None = None, seen: Array | None = None
  ) -> tuple[Array, Kept]:
    """The same, and its keys and values [B,heads,L,F]."""
    q, k, v = self._qkv(x, angles, blind)
    mask = None if seen is None else seen[:, None, None, :]
    h = self.proj(attend(q, k, v, mask=mask, causal=True).reshape(x.shape))
    x = x + self.drop(h, deterministic=not train)
    x = constrain(x + self.drop(self.mlp(self.norm2(x)), deterministic=not train))
    return x, (jnp.swapaxes(k, 1, 2), jnp.swapaxes(v, 1, 2))

  def step(
    self, x: Array, index: Array, cache: Kept, angles: Array | None = None, blind: Array | None = None,
    seen: Array | None = None,
  ) -> tuple[Array, Kept]:  # fmt: skip
    """x [B,1,width] at position `index` [] -> the same position's output, and the cache with its key and value.
    angles [1,F/2], blind [1]: of this position; seen [B,L]."""
    q, k, v = self._qkv(x, angles, blind)
    keys, values = (
      jax.lax.dynamic_update_slice_in_dim(old, jnp.swapaxes(new, 1, 2).astype(old.dtype), index, 2)
      for old, new in zip(cache, (k, v), strict=True)
    )
    written = jnp.arange(keys.shape[2]) <= index  # slots after `index` hold zeros, not keys
    if seen is not None:
      written = (written & seen)[:, None, None, :]
    h = self.proj(attend_one(q, keys, values, written).reshape(x.shape))
    x = x + h
    return x + self.mlp(self.norm2(x)), (keys, values)


def empty(depth: int, batch: int, heads: int, length: int, width: int, dtype: str) -> Cache:
  """A cache with nothing in it: static shapes, zeros."""
  shape = (batch, heads, length, width // heads)
  return tuple((jnp.zeros(shape, dtype), jnp.zeros(shape, dtype)) for _ in range(depth))
