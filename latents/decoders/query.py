"""The decoder of one-dimensional tokenizers: TiTok (Yu et al. 2024, arXiv:2406.07550), with prefixes (2501.10064)."""

import math
from typing import ClassVar

import flax.linen as nn
import jax.numpy as jnp

from latents.decoders.base import Decoder, read_z
from latents.encoders.query import Trunk, learned_tokens
from latents.errors import UserError
from latents.nn.linear import Dense
from latents.nn.patch import unpatchify
from latents.nn.sharding import constrain
from latents.types import Array, Latent


class QueryDecoder(Decoder):
  """z [B,N,D], mask [B,N] -> x [B,*S,channels] with S = grid * patch: mask tokens and latents go through a ViT.

  Each of the prod(grid) mask tokens has a learned position and gives one patch of the signal by a linear layer.
  Latent tokens whose mask is False are set to zero and are keys for nobody: x depends on the kept tokens alone,
  just as if the others were cut off.
  """

  last: ClassVar[tuple[str, ...]] = ("out_proj", "kernel")

  grid: tuple[int, ...] = (16, 16)
  width: int = 512
  depth: int = 8
  heads: int = 8
  patch: int = 16
  channels: int = 3
  remat: bool = False
  dtype: str = "float32"

  @nn.compact
  def reconstruct(self, latent: Latent, *, train: bool) -> Array:
    """z [B,N,D] -> float32 [B,*S,channels]."""
    z, mask, cells = read_z(latent), latent.mask, math.prod(self.grid)
    if z.ndim != 3:
      raise UserError(f"QueryDecoder reads a sequence of tokens [B,N,D], not a latent of shape {z.shape}")
    batch, tokens = z.shape[:2]
    xavier = nn.initializers.xavier_uniform()
    keys = None
    if mask is not None:
      z = jnp.where(mask[..., None], z, 0.0)  # a masked token may be anything, even NaN
      keys = jnp.concatenate([jnp.ones((batch, cells), bool), mask], 1)
    h = Dense(self.width, dtype=self.dtype, kernel_init=xavier, name="embed")(z)
    h = h + learned_tokens(self, "token_position", tokens, self.width, f"{tokens} tokens").astype(h.dtype)
    empty = learned_tokens(self, "mask_token", 1, self.width, "one mask token")
    empty = empty + learned_tokens(self, "position", cells, self.width, f"the grid {self.grid}")
    empty = jnp.broadcast_to(empty.astype(h.dtype), (batch, *empty.shape))
    h = constrain(jnp.concatenate([empty, h], 1))
    h = Trunk(self.depth, self.heads, self.remat, self.dtype, name="trunk")(h, keys)[:, :cells]
    pixels = self.patch ** len(self.grid) * self.channels
    h = Dense(pixels, dtype=self.dtype, kernel_init=xavier, name="out_proj")(h)
    return unpatchify(h, self.grid, self.patch).astype(jnp.float32)
