"""No bottleneck: the latent is the encoder's output (with `identity` parts: raw-signal models, TSR 1)."""

import jax.numpy as jnp

from latents.bottlenecks.base import Bottleneck, pointwise
from latents.types import Array


class NoBottleneck(Bottleneck):
  """[B,*s,E] -> z [B,*s,D]: z = h, or a linear 1x1 projection to `dim` channels where dim is given."""

  dim: int | None = None

  def setup(self) -> None:
    """Makes the projection."""
    if self.dim is not None:
      self.project = pointwise(self.dim)

  def store(self, h: Array) -> Array:
    """[B,*s,E] -> z [B,*s,D]."""
    h = h.astype(jnp.float32)
    return h if self.dim is None else self.project(h)
