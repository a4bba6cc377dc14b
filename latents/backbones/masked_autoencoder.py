"""The masked autoencoder over real-valued tokens. MAR: Li, Tian, Li, Deng, He 2024, arXiv:2406.11838, section 3.3 and
appendix, as released (MAE's encoder and decoder, arXiv:2111.06377)."""

import flax.linen as nn
import jax.numpy as jnp

from latents.errors import UserError
from latents.nn.attention import Attention
from latents.nn.condition import embed_labels
from latents.nn.linear import Dense
from latents.nn.mlp import Mlp
from latents.nn.remat import Remat, recomputed
from latents.nn.sharding import constrain
from latents.types import Array, Cond

START, EPS = nn.initializers.normal(0.02), 1e-6


class PreBlock(nn.Module):
  """[B,N,width] -> same shape: x + attention(LN(x)), then x + MLP(LN(x)), with dropout of what both add (the code also
  drops attention's own chances).

  seen: [B,N] bool, tokens that may be looked at; None = all.
  """

  heads: int
  dropout: float = 0.0
  dtype: str = "float32"

  @nn.compact
  def __call__(self, x: Array, seen: Array | None, train: bool) -> Array:
    """See the class."""
    drop = nn.Dropout(self.dropout, deterministic=not train)
    h = nn.LayerNorm(EPS, dtype=self.dtype, name="norm1")(x)
    x = x + drop(Attention(self.heads, dtype=self.dtype, name="attention")(h, seen))
    h = nn.LayerNorm(EPS, dtype=self.dtype, name="norm2")(x)
    return constrain(x + drop(Mlp(4.0, self.dtype, "erf", self.dropout, name="mlp")(h, train=train)))


class MaskedAutoencoder(nn.Module):
  """x [B,N,D] float, masked [B,N] bool, cond or None -> what is known of every token [B,N,width] float32.

  Nothing depends on x where it is masked. The encoder sees `buffer` tokens of the class and the visible ones, the
  decoder those and a learned vector for each masked one; `depth` blocks each. The code's encoder gathers the visible
  tokens; how many there are is not known when a program is traced, so here all tokens pass the encoder and none looks
  at a masked one: the same numbers, for more work (in the paper's training 30 % of the tokens at most are visible).
  classes: number of labels, label `classes` is the null label, and cond None means it. length: N.
  MAR-B, L, H: width 768, 1024, 1280, depth 12, 16, 20, heads 12, 16, 16. Raises UserError where N is not `length`.
  """

  width: int
  depth: int
  heads: int
  length: int
  classes: int = 0
  buffer: int = 64
  dropout: float = 0.0
  remat: Remat = "none"
  dtype: str = "float32"

  @property
  def out(self) -> int:
    """The numbers that it gives for a token."""
    return self.width

  @property
  def conditions(self) -> tuple[str, ...]:
    """Names of what it reads of a condition."""
    return ("label",) if self.classes else ()

  @nn.compact
  def __call__(self, x: Array, masked: Array, cond: Cond | None, *, train: bool = False) -> Array:
    """See the class."""
    if x.ndim != 3 or x.shape[1] != self.length:
      raise UserError(f"this network models [B,{self.length},D], got {x.shape}")
    if self.buffer < 1:
      raise UserError(f"the encoder of masked tokens has a buffer of at least 1 token, not {self.buffer}")
    batch, init = len(x), nn.initializers.xavier_uniform()
    total = self.buffer + self.length
    label = embed_labels(cond if self.classes else None, self.classes, batch, self.width, self.dtype)
    h = Dense(self.width, dtype=self.dtype, kernel_init=init, name="embed")(x)
    h = jnp.concatenate([jnp.repeat(label[:, None], self.buffer, 1), h], 1) + self._places("encoder_places", total)
    h = constrain(nn.LayerNorm(EPS, dtype=self.dtype, name="norm_in")(h))
    seen = jnp.concatenate([jnp.ones((batch, self.buffer), bool), ~masked], 1)
    h = self._trunk(h, seen, train, "encoder")
    h = Dense(self.width, dtype=self.dtype, kernel_init=init, name="decoder_embed")(h)
    token = self.param("mask", START, (self.width,), jnp.float32).astype(h.dtype)
    h = jnp.where(seen[..., None], h, token) + self._places("decoder_places", total)
    h = self._trunk(constrain(h), None, train, "decoder")[:, self.buffer :]
    return (h + self._places("final_places", self.length)).astype(jnp.float32)

  def _places(self, name: str, count: int) -> Array:
    return self.param(name, START, (count, self.width), jnp.float32).astype(self.dtype)

  def _trunk(self, h: Array, seen: Array | None, train: bool, name: str) -> Array:
    block = recomputed(PreBlock, self.remat, static=(3,))
    for i in range(self.depth):
      h = block(self.heads, self.dropout, self.dtype, name=f"{name}_{i}")(h, seen, train)
    return nn.LayerNorm(EPS, dtype=self.dtype, name=f"{name}_norm")(h)
