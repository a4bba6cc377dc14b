"""The encoder that does nothing: with `none` and `identity` parts a prior models the raw signal (TSR 1)."""

import flax.linen as nn

from latents.types import Array


class IdentityEncoder(nn.Module):
  """[B,*S,C] -> h = x; no parameters."""

  def __call__(self, x: Array, *, train: bool) -> Array:
    """[B,*S,C] -> same."""
    return x

  @property
  def stride(self) -> int:
    """1."""
    return 1
