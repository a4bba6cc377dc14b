"""The transformer decoder of patches: ViT-VQGAN (arXiv:2110.04627), ViTok (Hansen-Estruch et al. 2025, 2501.09755)."""

import flax.linen as nn
import jax.numpy as jnp

from latents.decoders.base import Decoder, read_z
from latents.encoders.query import Trunk
from latents.encoders.vit import bend
from latents.nn.linear import Dense
from latents.nn.patch import unpatchify
from latents.nn.position import sincos
from latents.nn.sharding import constrain
from latents.types import Array, Latent, later


class ViTDecoder(Decoder):
  """z [B,*s,D] -> x [B,*s*patch,channels]: a linear layer, a ViT, a linear layer to the pixels of each patch.

  Positions, sizes, hidden, head: as `ViTEncoder`.
  """

  last = ("out_proj", "kernel")

  width: int = 768
  depth: int = 12
  heads: int = 12
  patch: int = 16
  channels: int = 3
  remat: bool = False
  dtype: str = "float32"
  hidden: int = later(0)
  head: int = later(0)

  @nn.compact
  def reconstruct(self, latent: Latent, *, train: bool) -> Array:
    """z [B,*s,D] -> float32 [B,*s*patch,channels]."""
    z = read_z(latent)
    batch, *grid, dim = z.shape
    xavier = nn.initializers.xavier_uniform()
    h = Dense(self.width, dtype=self.dtype, kernel_init=xavier, name="embed")(z.reshape(batch, -1, dim))
    h = constrain(h + jnp.asarray(sincos(tuple(grid), self.width), h.dtype))
    h = Trunk(self.depth, self.heads, self.remat, self.dtype, self.head, name="trunk")(h)
    h = bend(h, self.hidden, self.dtype)
    pixels = self.patch ** len(grid) * self.channels
    h = Dense(pixels, dtype=self.dtype, kernel_init=xavier, name="out_proj")(h)
    return unpatchify(h, tuple(grid), self.patch).astype(jnp.float32)
