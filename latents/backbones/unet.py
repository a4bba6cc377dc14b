"""U-Net for diffusion: ADM (Dhariwal & Nichol 2021, arXiv:2105.05233) and LDM (Rombach et al. 2022), small parts."""

import flax.linen as nn
import jax.numpy as jnp

from latents.errors import UserError
from latents.nn.condition import labels
from latents.nn.conv import AttentionBlock, Conv, Downsample, ResBlock, Upsample
from latents.nn.norm import GroupNorm
from latents.nn.sharding import constrain
from latents.nn.time import embed_times
from latents.types import Array, Cond


class UNet(nn.Module):
  """x [B,*S,C], t [B] in [0,1] (or [B,n]: n times), cond or None -> [B,*S,out] float32; exactly 0 at the start.

  Level i works at S / 2^i with ch * mult[i] channels and `blocks` residual blocks (one more on the way up).
  attention: levels that attend over all positions after each block; the middle always does. heads: of attention.
  film: time scales and shifts (ADM) instead of being added (LDM). classes: number of labels; label `classes` is
  null and cond None means it; 0 = unconditional. out: None = C. What else the net should see is concatenated to
  x by the caller. Raises UserError where S does not divide by 2^(levels-1).
  """

  ch: int
  mult: tuple[int, ...] = (1, 2, 4)
  blocks: int = 2
  attention: tuple[int, ...] = ()
  heads: int = 1
  film: bool = True
  classes: int = 0
  out: int | None = None
  dropout: float = 0.0
  dtype: str = "float32"

  def _block(self, level: int, name: str) -> ResBlock:
    width = self.ch * self.mult[level]
    return ResBlock(width, 1e-5, self.film, zero=True, dropout=self.dropout, dtype=self.dtype, name=name)

  def _attend(self, name: str) -> AttentionBlock:
    return AttentionBlock(self.heads, 1e-5, zero=True, dtype=self.dtype, name=name)

  @property
  def conditions(self) -> tuple[str, ...]:
    """Names of what it reads of a condition."""
    return ("label",) if self.classes else ()

  def _condition(self, t: Array, cond: Cond | None) -> Array:
    c = embed_times(t, 4 * self.ch, self.dtype, self.ch)
    if self.classes:
      label = labels(cond, self.classes, t.shape[0])
      init = nn.initializers.normal(0.02)
      c = c + nn.Embed(self.classes + 1, 4 * self.ch, dtype=self.dtype, embedding_init=init, name="label")(label)
    return constrain(c)

  @nn.compact
  def __call__(self, x: Array, t: Array, cond: Cond | None, *, train: bool = False) -> Array:
    """See the class."""
    last = len(self.mult) - 1
    if any(n % 2**last for n in x.shape[1:-1]):
      raise UserError(f"a U-Net of {last + 1} levels needs axes that {2**last} divides, not {x.shape[1:-1]}")
    c = self._condition(t, cond)
    h = constrain(Conv(self.ch, dtype=self.dtype, name="conv_in")(x))
    skips = [h]
    for level in range(last + 1):
      for i in range(self.blocks):
        h = constrain(self._block(level, f"down_{level}_{i}")(h, c, train=train))
        h = self._attend(f"down_{level}_{i}_attention")(h) if level in self.attention else h
        skips.append(h)
      if level < last:
        h = Downsample(dtype=self.dtype, name=f"down_{level}_half")(h)
        skips.append(h)
    h = constrain(self._block(last, "middle_0")(h, c, train=train))
    h = self._attend("middle_attention")(h)
    h = constrain(self._block(last, "middle_1")(h, c, train=train))
    for level in reversed(range(last + 1)):
      for i in range(self.blocks + 1):
        h = jnp.concatenate([h, skips.pop()], -1)
        h = constrain(self._block(level, f"up_{level}_{i}")(h, c, train=train))
        h = self._attend(f"up_{level}_{i}_attention")(h) if level in self.attention else h
      if level:
        h = Upsample(dtype=self.dtype, name=f"up_{level}_double")(h)
    h = nn.silu(GroupNorm(eps=1e-5, dtype=self.dtype, name="norm_out")(h))
    return Conv(self.out or x.shape[-1], zero=True, dtype=self.dtype, name="conv_out")(h).astype(jnp.float32)
