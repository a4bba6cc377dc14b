"""Scaled dot-product attention and the self-attention layer (Vaswani et al. 2017, eq. 1)."""

import functools
import math
from typing import Any, Literal

import flax.linen as nn
import jax
import jax.numpy as jnp

from latents.errors import UserError
from latents.nn.linear import Dense
from latents.nn.norm import RMSNorm
from latents.nn.position import turn
from latents.types import Array


def attend(q: Array, k: Array, v: Array, *, mask: Array | None = None, causal: bool = False) -> Array:
  """q [B,N,heads,F], k and v [B,M,heads,F] -> [B,N,heads,F]: softmax(q k^T / sqrt(F)) v.

  mask: bool, broadcastable to [B,heads,N,M], True = may look. causal: position n sees m <= n only.
  Logits and softmax are float32; the products are in q's dtype. On NVIDIA's GPUs cuDNN computes it, without logits in
  memory, for bfloat16, where it takes the shapes.
  """
  given = (q, k, v) if mask is None else (q, k, v, mask)
  plain = functools.partial(_attend, None, causal)
  if q.dtype == jnp.float16:  # XLA's CPU has no such product with sums in float32
    return jax.lax.platform_dependent(*given, cpu=functools.partial(_attend_wide, causal), default=plain)
  if not _cudnn_takes(causal, *((a.shape, a.dtype) for a in given)):
    return plain(*given)
  return jax.lax.platform_dependent(*given, cuda=functools.partial(_attend, "cudnn", causal), default=plain)


def _attend(
  by: Literal["cudnn"] | None, causal: bool, q: Array, k: Array, v: Array, mask: Array | None = None
) -> Array:
  if by and mask is not None:
    mask = jnp.broadcast_to(mask, (*mask.shape[:2], q.shape[1], k.shape[1]))
  return jax.nn.dot_product_attention(q, k, v, mask=mask, is_causal=causal, implementation=by)


def _attend_wide(causal: bool, q: Array, k: Array, v: Array, mask: Array | None = None) -> Array:
  wide = [a.astype(jnp.float32) for a in (q, k, v)]
  return _attend(None, causal, wide[0], wide[1], wide[2], mask).astype(q.dtype)


@functools.lru_cache
def _cudnn_takes(causal: bool, *given: tuple[tuple[int, ...], Any]) -> bool:
  """Whether cuDNN is there and takes (shape, dtype) of q, k, v and perhaps a mask, forward and back: jax is asked."""
  if given[0][1] != jnp.bfloat16:
    return False
  q, k, v, *mask = (jax.ShapeDtypeStruct(*one) for one in given)

  def total(q: Array, k: Array, v: Array, *mask: Array) -> Array:
    return _attend("cudnn", causal, q, k, v, *mask).astype(jnp.float32).sum()

  try:
    jax.eval_shape(jax.grad(total, (0, 1, 2)), q, k, v, *mask)
  except (RuntimeError, NotImplementedError, ValueError):  # no cuDNN; no such shapes; no such dtypes
    return False
  return True


def attend_one(q: Array, k: Array, v: Array, seen: Array) -> Array:
  """q [B,1,heads,F], k and v [B,heads,L,F], seen [L] bool -> [B,1,heads,F]: `attend` of one query to keys that are
  stored head by head, as both products read them: a cache of [B,L,heads,F] is transposed at every token.
  """
  logits = jnp.einsum("bqhf,bhlf->bhql", q, k, preferred_element_type=jnp.float32) / math.sqrt(q.shape[-1])
  chances = jax.nn.softmax(jnp.where(seen, logits, -jnp.inf)).astype(v.dtype)
  return jnp.einsum("bhql,bhlf->bqhf", chances, v)


class Attention(nn.Module):
  """[B,N,C] -> same shape: multi-head self-attention with linear layers `qkv` (biased if `bias`) and `out`.

  causal: see `attend`. head: numbers of a head; 0 = C / heads. dtype: of the products; parameters are float32.
  qk_norm: queries and keys through an RMSNorm of their own, "q_norm" and "k_norm" (Henry et al. 2020,
  arXiv:2010.04245, as LightningDiT and JiT have it: over a head's numbers, scales shared by the heads, eps 1e-6).
  mask [B,N] bool: keys that may be looked at. angles [N,F/2]: rotary positions (`position.rotary`).
  """

  heads: int
  causal: bool = False
  dtype: str = "float32"
  head: int = 0
  qk_norm: bool = False
  bias: bool = True

  @nn.compact
  def __call__(self, x: Array, mask: Array | None = None, angles: Array | None = None) -> Array:
    """See the class."""
    width = x.shape[-1]
    if not self.head and width % self.heads:
      raise UserError(f"width {width} does not divide into {self.heads} heads")
    init = nn.initializers.xavier_uniform()
    total = 3 * (self.head * self.heads or width)
    qkv = Dense(total, use_bias=self.bias, dtype=self.dtype, kernel_init=init, name="qkv")(x)
    q, k, v = (a.reshape(*x.shape[:-1], self.heads, -1) for a in jnp.split(qkv, 3, -1))
    if self.qk_norm:
      q, k = (RMSNorm(1e-6, self.dtype, name=name)(a) for name, a in (("q_norm", q), ("k_norm", k)))
    if angles is not None:
      q, k = turn(q, angles), turn(k, angles)
    seen = None if mask is None else mask[:, None, None, :]
    h = attend(q, k, v, mask=seen, causal=self.causal).reshape(*x.shape[:-1], -1)
    return Dense(width, dtype=self.dtype, kernel_init=init, name="out")(h)


class ContextAttention(nn.Module):
  """x [B,N,C], context [B,M,E] or None (x itself) -> [B,N,C]: queries of x to keys and values of the context.

  mask [B,M] bool: what may be looked at. No biases but the last one's (LDM, arXiv:2112.10752, eq. 3).
  Parameters: qkv (None), or q and kv; out.
  """

  heads: int
  dtype: str = "float32"

  @nn.compact
  def __call__(self, x: Array, context: Array | None = None, mask: Array | None = None) -> Array:
    """See the class."""
    width = x.shape[-1]
    if width % self.heads:
      raise UserError(f"width {width} does not divide into {self.heads} heads")
    init = nn.initializers.xavier_uniform()

    def linear(parts: int, of: Array, name: str) -> list[Array]:
      h = Dense(parts * width, use_bias=False, dtype=self.dtype, kernel_init=init, name=name)(of)
      return [a.reshape(*a.shape[:-1], self.heads, -1) for a in jnp.split(h, parts, -1)]

    q, k, v = linear(3, x, "qkv") if context is None else (*linear(1, x, "q"), *linear(2, context, "kv"))
    h = attend(q, k, v, mask=None if mask is None else mask[:, None, None, :]).reshape(x.shape)
    return Dense(width, dtype=self.dtype, kernel_init=init, name="out")(h)
