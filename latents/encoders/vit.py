"""The transformer encoder of patches: ViT-VQGAN (arXiv:2110.04627), ViTok (Hansen-Estruch et al. 2025, 2501.09755)."""

import flax.linen as nn
import jax.numpy as jnp

from latents.encoders.query import Trunk
from latents.nn.linear import Dense
from latents.nn.patch import patchify
from latents.nn.position import sincos
from latents.nn.sharding import constrain
from latents.types import Array, later


class ViTEncoder(nn.Module):
  """[B,*S,C] -> h [B,*S/patch,out]: patches through a ViT, a linear layer to `out`; the grid stays.

  out: 2c for a KL latent of c channels, with `KL(projected=False)`; E = prod(S) / patch^n * c is how many numbers it
  has, which is what reconstruction follows (section 3.1). Fixed sine and cosine positions, so any grid that the patch
  divides (the paper turns queries and keys instead, and has SwiGLU of 2.67 for our MLP of 4: as many parameters).
  S: width 768 depth 6 heads 12; B: 768, 12, 12; L: 1152, 24, 16; the encoder has the decoder's width.
  hidden: units of a tanh layer in front of the last one (ViT-VQGAN, Yu et al. 2021, arXiv:2110.04627, section 3.1: four
  times the width); 0 = none. head: numbers of an attention head; 0 = width / heads.
  """

  last = ("out_proj", "kernel")

  width: int = 768
  depth: int = 6
  heads: int = 12
  patch: int = 16
  out: int = 32
  remat: bool = False
  dtype: str = "float32"
  hidden: int = later(0)
  head: int = later(0)

  @property
  def stride(self) -> int:
    """The patch."""
    return self.patch

  @nn.compact
  def __call__(self, x: Array, *, train: bool) -> Array:
    """[B,*S,C] -> [B,*S/patch,out]. UserError where the patch divides an axis not."""
    patches, grid = patchify(x, self.patch)
    xavier = nn.initializers.xavier_uniform()
    h = Dense(self.width, dtype=self.dtype, kernel_init=xavier, name="embed")(patches)
    h = constrain(h + jnp.asarray(sincos(grid, self.width), h.dtype))
    h = Trunk(self.depth, self.heads, self.remat, self.dtype, self.head, name="trunk")(h)
    h = bend(h, self.hidden, self.dtype)
    h = Dense(self.out, dtype=self.dtype, kernel_init=xavier, name="out_proj")(h)
    return h.reshape(x.shape[0], *grid, self.out)


def bend(h: Array, hidden: int, dtype: str) -> Array:
  """[B,N,width] -> [B,N,hidden], a tanh layer "hidden" of the module that calls; h where `hidden` is 0."""
  if not hidden:
    return h
  return jnp.tanh(Dense(hidden, dtype=dtype, kernel_init=nn.initializers.xavier_uniform(), name="hidden")(h))
