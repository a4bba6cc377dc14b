"""The bidirectional transformer that fills in masked tokens. MaskGIT: Chang et al. 2022, arXiv:2202.04200, as released
(BERT's layers, arXiv:1810.04805)."""

import flax.linen as nn
import jax.numpy as jnp

from latents.backbones.tokens import OneVocabulary
from latents.errors import UserError
from latents.nn.attention import Attention
from latents.nn.condition import labels
from latents.nn.linear import Dense
from latents.nn.mlp import Mlp
from latents.nn.remat import Remat, recomputed
from latents.nn.sharding import constrain
from latents.types import Array, Cond

EPS = 1e-12  # of all norms, BERT's
START = nn.initializers.truncated_normal(0.02)


class PostBlock(nn.Module):
  """[B,N,width] -> same shape: x = LN(x + attention(x)), then LN(x + MLP(x)); dropout on both branches (BERT)."""

  heads: int
  dropout: float = 0.0
  dtype: str = "float32"

  @nn.compact
  def __call__(self, x: Array, train: bool) -> Array:
    """See the class."""
    drop = nn.Dropout(self.dropout, deterministic=not train)
    h = drop(Attention(self.heads, dtype=self.dtype, name="attention")(x))
    x = nn.LayerNorm(EPS, dtype=self.dtype, name="norm1")(x + h)
    h = drop(Mlp(dtype=self.dtype, name="mlp")(x))
    return constrain(nn.LayerNorm(EPS, dtype=self.dtype, name="norm2")(x + h))


class MaskedTransformer(OneVocabulary):
  """tokens [B,L] int32 in 0..vocab, cond or None -> logits [B,L,vocab] float32; `vocab` says that a token is masked.

  Every row sees all tokens. Tokens are positions in raster order with the `groups` codes of one position innermost (L =
  positions * groups): a position is the sum of its codes' embeddings, and its logits are one softmax a group, each on
  its own (factorised heads; the codes of a position are drawn independently). length: the L that is modelled.
  classes: the class is a token in front; label `classes` is the null label, and cond None means it.
  Positions are learned. Logits are products with the embeddings (tied), after a layer of its own, plus a bias a code.
  Attention's own chances are not dropped, which the code does. MaskGIT: 24 blocks of width 768, 16 heads.
  Raises UserError where L is not `length`.
  """

  vocab: int
  width: int
  depth: int
  heads: int
  length: int
  classes: int = 0
  groups: int = 1
  dropout: float = 0.0
  remat: Remat = "none"
  dtype: str = "float32"

  @nn.compact
  def __call__(self, tokens: Array, cond: Cond | None, *, train: bool = False) -> Array:
    """See the class."""
    if tokens.ndim != 2 or tokens.shape[1] != self.length or self.length % self.groups:
      raise UserError(f"this transformer models [B,{self.length}] tokens of {self.groups} a place, got {tokens.shape}")
    batch, rows = len(tokens), self.groups * (self.vocab + 1)
    table = nn.Embed(rows + self.classes + 1, self.width, dtype=self.dtype, embedding_init=START, name="embed")
    first = (self.vocab + 1) * jnp.arange(self.groups)
    h = table(tokens.reshape(batch, -1, self.groups) + first).sum(-2)
    if self.classes:
      label = table(rows + labels(cond, self.classes, batch))
      h = jnp.concatenate([label[:, None], h], 1)
    h = h + self.param("positions", START, h.shape[1:], jnp.float32).astype(h.dtype)
    h = nn.LayerNorm(EPS, dtype=self.dtype, name="norm_in")(h)
    h = constrain(nn.Dropout(self.dropout, deterministic=not train)(h))
    block = recomputed(PostBlock, self.remat, static=(2,))
    for i in range(self.depth):
      h = block(self.heads, self.dropout, self.dtype, name=f"blocks_{i}")(h, train)
    h = h[:, -(self.length // self.groups) :]
    h = nn.gelu(Dense(self.width, dtype=self.dtype, kernel_init=START, name="out")(h))
    h = nn.LayerNorm(EPS, dtype=self.dtype, name="norm_out")(h)
    codes = table.embedding[:rows].reshape(self.groups, self.vocab + 1, self.width)[:, : self.vocab]
    logits = jnp.einsum("bnw,gvw->bngv", h, codes.astype(h.dtype)).astype(jnp.float32)
    bias = self.param("bias", nn.initializers.zeros, (self.groups, self.vocab), jnp.float32)
    return (logits + bias).reshape(batch, self.length, self.vocab)
