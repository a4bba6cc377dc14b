"""PixelSNAIL: Chen, Mishra, Rohaninejad, Abbeel 2017, arXiv:1712.09763; their code, model h12_noup_smallkey."""

import functools
import math

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np

from latents.backbones.grids import GridElements, LowerGridTokens, Told
from latents.backbones.pixelcnn_pp import row_and_left, with_ones
from latents.errors import UserError
from latents.nn.shifted_conv import GatedResnet, ShiftedConv
from latents.types import Array, Cond

KEY = 16  # numbers of a key


def attend_before(q: Array, k: Array, v: Array) -> Array:
  """q, k [B,N,F], v [B,N,E] -> [B,N,E]: attention to what stands before, itself left out; 0 for the first."""
  logits = jnp.einsum("bqf,bkf->bqk", q, k, preferred_element_type=jnp.float32) / math.sqrt(q.shape[-1])
  before = jnp.tri(q.shape[1], k=-1, dtype=bool)
  chances = jax.nn.softmax(jnp.where(before, logits, -1e30)) * before  # the first has no place to look at
  return jnp.einsum("bqk,bke->bqe", chances.astype(v.dtype), v)


class SnailMaps(nn.Module):
  """x [B,H,W,C] -> [B,H,W,width] of what stands before each place, and the places themselves (figure 2).

  A block is `resnets` gated blocks of 2 x 2 taps and one head of attention: keys (`KEY` numbers) and values (width / 2)
  of x, the features and where it is; queries of the features and where it is. A key has seen its own place, so no place
  looks at itself. The taps look one place to the right of what is above and no further: the rest is attention's. A
  label, and the map `above`, are told in every gate of the 2 x 2 blocks.
  """

  width: int
  blocks: int
  resnets: int
  dropout: float
  classes: int
  dtype: str

  @nn.compact
  def __call__(self, x: Array, label: Array | None, above: Array | None, train: bool) -> Array:
    """See the class."""
    gated = functools.partial(GatedResnet, dropout=self.dropout, activation="elu", dtype=self.dtype)
    linear = functools.partial(ShiftedConv, look="here", dtype=self.dtype)
    b, height, width = x.shape[:3]
    axes = np.meshgrid(np.arange(height) / height - 0.5, np.arange(width) / width - 0.5, indexing="ij")
    where = jnp.broadcast_to(jnp.asarray(np.stack(axes, -1), x.dtype), (b, height, width, 2))
    h = row_and_left(with_ones(x), self.width, self.dtype)
    for i in range(self.blocks):
      for j in range(self.resnets):
        told = Told(2 * self.width, self.classes, self.dtype, name=f"told{i}_{j}")(label, above)
        h = gated("corner", name=f"block{i}_{j}")(h, None, told, train=train)
      seen = gated("here", name=f"seen{i}")(jnp.concatenate([x, h, where], -1), train=train)
      asked = gated("here", name=f"asked{i}")(jnp.concatenate([h, where], -1), train=train)
      k, v = jnp.split(linear(KEY + self.width // 2, name=f"keys{i}")(seen), (KEY,), -1)
      q = linear(KEY, name=f"queries{i}")(asked)
      found = attend_before(*(a.reshape(b, height * width, -1) for a in (q, k, v)))
      h = gated("here", name=f"found{i}")(h, found.reshape(b, height, width, -1), train=train)
    return nn.elu(h)


class PixelSNAIL(GridElements):
  """x [B,L,C] pixels, cond or None -> [B,L,out]: `GridElements`, by `SnailMaps`, whose fields it has.

  The defaults are CIFAR-10's, `out` 100 of ten components. Left out: scales and biases set by the first batch.
  """

  width: int = 256
  blocks: int = 12
  resnets: int = 4
  dropout: float = 0.5

  @nn.compact
  def __call__(self, x: Array, cond: Cond | None, *, train: bool = False) -> Array:
    """See the class."""
    maps = SnailMaps(self.width, self.blocks, self.resnets, self.dropout, self.classes, self.dtype, name="maps")
    h = maps(self.picture(x), self.label(cond, x.shape[0]), None, train)
    return self.elements(ShiftedConv(self.out, "here", name="out")(h))


class PixelSNAILCodes(LowerGridTokens):
  """tokens [B,L] of a grid, one a place, cond or None -> logits [B,L,V]: `LowerGridTokens`, by `SnailMaps`.

  The defaults are the top prior of VQ-VAE-2 (arXiv:1906.00446, appendix): 20 layers, attention after every fifth.
  UserError for several tokens a place, among which this network knows no order.
  """

  width: int = 512
  blocks: int = 4
  resnets: int = 5
  dropout: float = 0.1

  @nn.compact
  def __call__(self, tokens: Array, cond: Cond | None, *, train: bool = False) -> Array:
    """See the class."""
    if self.groups != 1:
      raise UserError(f"PixelSNAILCodes models one code a place, not {self.groups}")
    maps = SnailMaps(self.width, self.blocks, self.resnets, self.dropout, self.classes, self.dtype, name="maps")
    h = maps(self.maps(tokens), self.label(cond, tokens.shape[0]), self.stack(cond, self.width), train)
    return self.rows(ShiftedConv(self.vocab, "here", gain=0.1, dtype=self.dtype, name="out")(h))
