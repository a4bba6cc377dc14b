"""Conditions as networks read them: labels with a null, and texts as tokens. A condition (`types.Cond`) says by name
what is known of each example; rows that "drop" marks are treated as if nothing were known."""

import flax.linen as nn
import jax.numpy as jnp

from latents.errors import UserError
from latents.nn.linear import Dense
from latents.types import Array, Cond


def entry(cond: Cond, name: str) -> Array:
  """What a condition says under a name. UserError, naming what it has, where it says nothing."""
  if name not in cond:
    known = ", ".join(key for key in cond if key != "drop") or "nothing"
    raise UserError(f"the network is conditioned on '{name}', but the condition has {known}")
  return cond[name]


def labels(cond: Cond | None, classes: int, batch: int) -> Array:
  """[B] int32 labels; `classes`, the null label, where cond is None or drops a row."""
  if cond is None:
    return jnp.full((batch,), classes, jnp.int32)
  given = entry(cond, "label")
  return jnp.where(cond["drop"], classes, given) if "drop" in cond else given


def texts(cond: Cond | None, shape: tuple[int, ...], batch: int) -> tuple[Array, Array]:
  """cond -> (text [B,L,E] as it is, mask [B,L]), shape = (L, E), for attention to it.

  Where a row is dropped or cond is None: what the condition says of that, "text_null" [B,L,E], or zeros, all seen:
  every value is 0 then, which no text gives.
  """
  empty, all_seen = jnp.zeros((batch, *shape)), jnp.ones((batch, shape[0]), bool)
  if cond is None:
    return empty, all_seen
  text, mask = entry(cond, "text"), entry(cond, "text_mask").astype(bool)
  if text.shape[1:] != shape:
    raise UserError(f"the network reads texts of {shape}, not {text.shape[1:]}")
  if "drop" not in cond:
    return text, mask
  drop = cond["drop"][:, None]
  return jnp.where(drop[..., None], cond.get("text_null", empty), text), mask | drop


def embed_labels(cond: Cond | None, classes: int, batch: int, width: int, dtype: str) -> Array:
  """[B,width]: a learned vector a label, the null label's included, N(0, 0.02), as "label"; within a `nn.compact`."""
  init = nn.initializers.normal(0.02)
  table = nn.Embed(classes + 1, width, dtype=dtype, embedding_init=init, name="label")
  return table(labels(cond, classes, batch))


class TextTokens(nn.Module):
  """cond -> (tokens [B,L,width], mask [B,L]): "text" [B,L,E] projected; where a row is dropped or cond is None, every
  token is one that was learned for that."""

  width: int
  length: int
  dtype: str = "float32"

  @nn.compact
  def __call__(self, cond: Cond | None, size: int, batch: int) -> tuple[Array, Array]:
    """size: E of the embeddings."""
    null = self.param("null", nn.initializers.normal(0.02), (1, 1, self.width)).astype(self.dtype)
    empty = jnp.broadcast_to(null, (batch, self.length, self.width))
    project = Dense(self.width, dtype=self.dtype, name="project")
    if cond is None:
      project(jnp.zeros((1, 1, size)))  # its parameters are made by any first pass
      return empty, jnp.ones((batch, self.length), bool)
    text, mask = entry(cond, "text"), entry(cond, "text_mask").astype(bool)
    if text.shape[1:] != (self.length, size):
      raise UserError(f"the network reads texts of {(self.length, size)}, not {text.shape[1:]}")
    tokens = project(text)
    if "drop" not in cond:
      return tokens, mask
    drop = cond["drop"][:, None]
    return jnp.where(drop[..., None], empty, tokens), mask | drop
