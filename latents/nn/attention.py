"""Scaled dot-product attention and the self-attention layer (Vaswani et al. 2017, eq. 1)."""

import flax.linen as nn
import jax
import jax.numpy as jnp

from latents.errors import UserError
from latents.types import Array


def attend(q: Array, k: Array, v: Array, *, mask: Array | None = None, causal: bool = False) -> Array:
  """q [B,N,heads,F], k and v [B,M,heads,F] -> [B,N,heads,F]: softmax(q k^T / sqrt(F)) v.

  mask: bool, broadcastable to [B,heads,N,M], True = may look. causal: position n sees m <= n only.
  Logits and softmax are float32; the products are in q's dtype.
  """
  return jax.nn.dot_product_attention(q, k, v, mask=mask, is_causal=causal)


class Attention(nn.Module):
  """[B,N,C] -> same shape: multi-head self-attention with biased linear layers `qkv` and `out`.

  causal: see `attend`. dtype: of the products; parameters are float32.
  mask [B,N] bool: keys that may be looked at.
  """

  heads: int
  causal: bool = False
  dtype: str = "float32"

  @nn.compact
  def __call__(self, x: Array, mask: Array | None = None) -> Array:
    """See the class."""
    width = x.shape[-1]
    if width % self.heads:
      raise UserError(f"width {width} does not divide into {self.heads} heads")
    init = nn.initializers.xavier_uniform()
    qkv = nn.Dense(3 * width, dtype=self.dtype, kernel_init=init, name="qkv")(x)
    q, k, v = jnp.moveaxis(qkv.reshape(*x.shape[:-1], 3, self.heads, width // self.heads), -3, 0)
    seen = None if mask is None else mask[:, None, None, :]
    h = attend(q, k, v, mask=seen, causal=self.causal).reshape(x.shape)
    return nn.Dense(width, dtype=self.dtype, kernel_init=init, name="out")(h)
