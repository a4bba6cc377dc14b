"""EDM2's magnitude-preserving U-Net (Karras et al. 2024, arXiv:2312.02696, configuration G, figure 21)."""

from typing import Literal

import flax.linen as nn
import jax
import jax.numpy as jnp

from latents.errors import UserError
from latents.nn.condition import labels
from latents.nn.conv import halved, nearest
from latents.nn.magnitude import MPAttention, MPConv, MPFourier, mp_cat, mp_silu, mp_sum, unit
from latents.types import Array, Cond

# The shares of the second of two that are added or joined (table 5), and where activations end.
RESIDUAL, ATTENTION, LABEL, SKIP, MOST = 0.3, 0.3, 0.5, 0.5, 256.0


class MPBlock(nn.Module):
  """x [B,*S,C], c [B,E] -> [B,*S',width]: a residual block of the way down (its trunk is normalised), or up.

  resample: of x, before all else. attention: after the residual. Parameters: skip (where channels change), conv1,
  embed, gain (of c, 0 at the start), conv2, attention.
  """

  width: int
  way: Literal["down", "up"]
  resample: Literal["none", "half", "double"] = "none"
  attention: bool = False
  head: int = 64
  dropout: float = 0.0
  dtype: str = "float32"

  @nn.compact
  def __call__(self, x: Array, c: Array, *, train: bool) -> Array:
    """See the class."""
    x = {"none": lambda x: x, "half": halved, "double": nearest}[self.resample](x)
    skip = MPConv(self.width, 1, self.dtype, name="skip") if x.shape[-1] != self.width else lambda x: x
    if self.way == "down":
      x = unit(skip(x))
    y = MPConv(self.width, dtype=self.dtype, name="conv1")(mp_silu(x))
    gain = self.param("gain", nn.initializers.zeros, (), jnp.float32)
    scale = 1 + MPConv(self.width, 0, self.dtype, name="embed")(c, gain)
    y = mp_silu(y * scale.reshape(scale.shape[0], *(1,) * (y.ndim - 2), -1))
    y = nn.Dropout(self.dropout, deterministic=not train)(y)
    y = MPConv(self.width, dtype=self.dtype, name="conv2")(y)
    x = mp_sum(skip(x) if self.way == "up" else x, y, RESIDUAL)
    if self.attention:
      x = mp_sum(x, MPAttention(self.head, self.dtype, name="attention")(x), ATTENTION)
    return jnp.clip(x, -MOST, MOST)


class MPUNet(nn.Module):
  """x [B,*S,D], t [B], cond or None -> [B,*S,out] float32; exactly 0 at the start (a gain of the last layer).

  For EDM's preconditioning (`Process(predict="edm")`): x of magnitude 1, and 1000 t = ln(sigma) / 4, of which it sees
  waves. Level i works at S / 2^i with ch * mult[i] channels and `blocks` blocks (one more on the way up). attention:
  levels that attend; the middle always does. head: channels of a head. classes: number of labels; label `classes` is
  null and cond None means it; 0 = unconditional. UserError where S does not divide by 2^(levels-1).
  """

  ch: int
  mult: tuple[int, ...] = (1, 2, 3, 4)
  blocks: int = 3
  attention: tuple[int, ...] = (2, 3)
  head: int = 64
  classes: int = 0
  out: int | None = None
  dropout: float = 0.0
  dtype: str = "float32"

  @property
  def conditions(self) -> tuple[str, ...]:
    """Names of what it reads of a condition."""
    return ("label",) if self.classes else ()

  def _condition(self, t: Array, cond: Cond | None) -> Array:
    """[B,E] of magnitude 1: time, and the label as one of classes + 1 numbers, whose magnitude is 1."""
    width, kinds = self.ch * max(self.mult), self.classes + 1
    c = MPConv(width, 0, self.dtype, name="time")(MPFourier(self.ch * self.mult[0])(1000 * t))
    if self.classes:
      given = jax.nn.one_hot(labels(cond, self.classes, t.shape[0]), kinds) * kinds**0.5
      c = mp_sum(c, MPConv(width, 0, self.dtype, name="label")(given), LABEL)
    return mp_silu(c)

  @nn.compact
  def __call__(self, x: Array, t: Array, cond: Cond | None, *, train: bool = False) -> Array:
    """See the class."""
    last = len(self.mult) - 1
    if any(n % 2**last for n in x.shape[1:-1]):
      raise UserError(f"a U-Net of {last + 1} levels needs axes that {2**last} divides, not {x.shape[1:-1]}")
    c = self._condition(t, cond)

    def block(h: Array, level: int, way: Literal["down", "up"], name: str, **options) -> Array:
      attends = options.pop("attention", level in self.attention and not options)
      width = h.shape[-1] if options else self.ch * self.mult[level]
      made = MPBlock(
        width, way, attention=attends, head=self.head, dropout=self.dropout, dtype=self.dtype, name=name, **options
      )
      return made(h, c, train=train)

    ones = jnp.ones((*x.shape[:-1], 1), x.dtype)  # in place of biases
    h = MPConv(self.ch * self.mult[0], dtype=self.dtype, name="conv_in")(jnp.concatenate([x, ones], -1))
    skips = [h]
    for level in range(last + 1):
      if level:
        h = block(h, level, "down", f"down_{level}_half", resample="half")
        skips.append(h)
      for i in range(self.blocks):
        h = block(h, level, "down", f"down_{level}_{i}")
        skips.append(h)
    h = block(h, last, "up", "middle_0", attention=True)
    h = block(h, last, "up", "middle_1", attention=False)
    for level in reversed(range(last + 1)):
      for i in range(self.blocks + 1):
        h = block(mp_cat(h, skips.pop(), SKIP), level, "up", f"up_{level}_{i}")
      if level:
        h = block(h, level, "up", f"up_{level}_double", resample="double")
    gain = self.param("gain", nn.initializers.zeros, (), jnp.float32)
    return MPConv(self.out or x.shape[-1], dtype=self.dtype, name="conv_out")(h, gain).astype(jnp.float32)


def edm2(size: Literal["XS", "S", "M", "L", "XL", "XXL"], **fields) -> MPUNet:
  """The networks of ImageNet-512 on latents of 64x64x4 (table 1): 125, 280, 498, 777, 1119 and 1523 million numbers."""
  return MPUNet(ch={"XS": 128, "S": 192, "M": 256, "L": 320, "XL": 384, "XXL": 448}[size], **fields)
