"""The U-ViT of simple diffusion: convolutions where signals are large, a transformer where they are small.

Hoogeboom, Heek, Salimans 2023, arXiv:2301.11093, sections 3.2 and 3.3. (Another network of that name, Bao et al. 2022,
arXiv:2209.12152, is a transformer alone.)
"""

import flax.linen as nn
import jax.numpy as jnp

from latents.backbones.dit import Block
from latents.errors import UserError
from latents.nn.condition import embed_labels
from latents.nn.conv import Conv, Downsample, ResBlock, Upsample
from latents.nn.linear import Dense
from latents.nn.norm import GroupNorm
from latents.nn.position import sincos
from latents.nn.sharding import constrain
from latents.nn.time import embed_times
from latents.types import Array, Cond


class UNetTransformer(nn.Module):
  """x [B,*S,D], t [B] in [0,1] (or [B,n]: n times), cond or None -> [B,*S,out] float32; exactly 0 at the start.

  Level i works at S / 2^i with ch * mult[i] channels and `blocks` residual blocks on either way; what comes down is
  joined to what goes up, once a block. Below the last, at S / 2^levels, `depth` of DiT's blocks of `width` and `heads`;
  their dropout is the network's only one: at high resolution there is none (section 3.3). classes: number of labels;
  label `classes` is null and cond None means it; 0 = unconditional. out: None = D. UserError where S does not divide by
  2^levels.
  """

  ch: int
  mult: tuple[int, ...] = (1, 2, 4, 8)
  blocks: int = 2
  depth: int = 6
  width: int = 256
  heads: int = 4
  classes: int = 0
  out: int | None = None
  dropout: float = 0.0
  dtype: str = "float32"

  @property
  def conditions(self) -> tuple[str, ...]:
    """Names of what it reads of a condition."""
    return ("label",) if self.classes else ()

  def _condition(self, t: Array, cond: Cond | None) -> Array:
    width = 8 * self.ch
    c = embed_times(t, width, self.dtype)
    if self.classes:
      c = c + embed_labels(cond, self.classes, t.shape[0], width, self.dtype)
    return constrain(c)

  def _block(self, level: int, name: str) -> ResBlock:
    return ResBlock(self.ch * self.mult[level], 1e-5, film=True, zero=True, dtype=self.dtype, name=name)

  def _transformer(self, h: Array, c: Array, train: bool) -> Array:
    """[B,*s,C] -> same shape."""
    grid, channels = h.shape[1:-1], h.shape[-1]
    init = nn.initializers.xavier_uniform()
    tokens = h.reshape(h.shape[0], -1, channels)
    tokens = Dense(self.width, dtype=self.dtype, kernel_init=init, name="tokens_in")(tokens)
    tokens = constrain(tokens + sincos(grid, self.width).astype(self.dtype))
    for i in range(self.depth):
      made = Block(self.heads, dtype=self.dtype, dropout=self.dropout, name=f"blocks_{i}")
      tokens = made(tokens, c, train=train)
    back = Dense(channels, dtype=self.dtype, kernel_init=init, name="tokens_out")(tokens)
    return h + back.reshape(h.shape)

  @nn.compact
  def __call__(self, x: Array, t: Array, cond: Cond | None, *, train: bool = False) -> Array:
    """See the class."""
    levels = len(self.mult)
    if any(n % 2**levels for n in x.shape[1:-1]):
      raise UserError(f"a U-ViT of {levels} levels needs axes that {2**levels} divides, not {x.shape[1:-1]}")
    c = self._condition(t, cond)
    h = constrain(Conv(self.ch, dtype=self.dtype, name="conv_in")(x))
    skips = []
    for level in range(levels):
      for i in range(self.blocks):
        h = constrain(self._block(level, f"down_{level}_{i}")(h, c, train=train))
        skips.append(h)
      h = Downsample(dtype=self.dtype, name=f"down_{level}_half")(h)
    h = self._transformer(h, c, train)
    for level in reversed(range(levels)):
      h = Upsample(dtype=self.dtype, name=f"up_{level}_double")(h)
      for i in range(self.blocks):
        h = jnp.concatenate([h, skips.pop()], -1)
        h = constrain(self._block(level, f"up_{level}_{i}")(h, c, train=train))
    h = nn.silu(GroupNorm(eps=1e-5, dtype=self.dtype, name="norm_out")(h))
    return Conv(self.out or x.shape[-1], zero=True, dtype=self.dtype, name="conv_out")(h).astype(jnp.float32)
