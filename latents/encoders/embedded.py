"""An encoder of signals for tokens: bytes or other numbers, looked up in a table first."""

from typing import Any

import flax.linen as nn
import jax.numpy as jnp

from latents.types import Array


class Embedded(nn.Module):
  """x int32 [B,*S] in [0,vocab) -> h [B,*s,E]: a learned vector [width] of every token, then `encoder` as of a signal.

  vocab: of tokens; 256 of bytes. The vectors begin N(0,1).
  """

  encoder: nn.Module
  vocab: int = 256
  width: int = 64

  @property
  def last(self) -> tuple[str, ...]:
    """The encoder's."""
    encoder: Any = self.encoder
    return ("encoder", *encoder.last)

  @property
  def stride(self) -> Any:
    """Of the encoder; None where it has none."""
    return getattr(self.encoder, "stride", None)

  @nn.compact
  def __call__(self, x: Array, *, train: bool) -> Array:
    """[B,*S] -> [B,*s,E]."""
    table = nn.Embed(self.vocab, self.width, embedding_init=nn.initializers.normal(1.0), name="table")
    encoder: Any = self.encoder
    return encoder(table(x.astype(jnp.int32)), train=train)  # shapes are asked for with floats
