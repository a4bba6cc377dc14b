"""PixelCNN++: Salimans, Karpathy, Chen, Kingma 2017, arXiv:1701.05517; openai/pixel-cnn, pixel_cnn_pp/model.py."""

import functools
import itertools
from typing import Any

import flax.linen as nn
import jax.numpy as jnp

from latents.backbones.grids import GridElements, Told
from latents.errors import UserError
from latents.nn.masked_conv import down, right
from latents.nn.shifted_conv import GatedResnet, Look, ShiftedConv
from latents.types import Array, Cond


def row_and_left(x: Array, width: int, dtype: str) -> Array:
  """x [B,H,W,C], with a channel of ones -> [B,H,W,width] of the row above and of what is left; in a `nn.compact`."""
  conv = functools.partial(ShiftedConv, width, dtype=dtype)
  return down(conv("up", (1, 3), name="first_row")(x)) + right(conv("corner", (2, 1), name="first_left")(x))


def with_ones(x: Array) -> Array:
  """[B,H,W,C] -> [B,H,W,C+1]: a channel of ones, which tells the picture from the zeros around it."""
  return jnp.concatenate([x, jnp.ones_like(x[..., :1])], -1)


class PixelCNNPlus(GridElements):
  """x [B,L,C] pixels, cond or None -> [B,L,out]: `GridElements`, on `scales` scales with shortcuts from down to up.

  Two streams: u of what is above, by kernels of 2 x 3, and c of what is above or to the left, by 2 x 2, which is told
  u in every block; causal by a shift of their inputs. `blocks` gated blocks a scale on the way down, one more on the
  way up but for the smallest, each told what the way down had there; half the size by strides. The defaults are
  CIFAR-10's, `out` 100 of ten components. A label is a vector in every gate. dropout: after the first convolution of
  each block. H and W divide by 2^(scales - 1). Left out: scales and biases set by the first batch.
  """

  width: int = 160
  blocks: int = 5
  scales: int = 3
  dropout: float = 0.5

  @nn.compact
  def __call__(self, x: Array, cond: Cond | None, *, train: bool = False) -> Array:
    """See the class."""
    x, label = with_ones(self.picture(x)), self.label(cond, x.shape[0])
    if any(n % 2 ** (self.scales - 1) for n in x.shape[1:3]):
      raise UserError(f"{self.scales} scales halve a picture of {x.shape[1:3]} {self.scales - 1} times")
    numbers = itertools.count(1)

    def gated(look: Look, x: Array, beside: Array | None) -> Array:
      number = next(numbers)
      told = Told(2 * self.width, self.classes, self.dtype, name=f"told{number}")(label, None)
      block = GatedResnet(look, self.dropout, dtype=self.dtype, name=f"block{number}")
      return block(x, beside, told, train=train)

    def resize(u: Array, c: Array, name: str, **how: Any) -> tuple[Array, Array]:
      conv = functools.partial(ShiftedConv, self.width, dtype=self.dtype, **how)
      return conv("up", name=f"{name}_up")(u), conv("corner", name=f"{name}_corner")(c)

    u = down(ShiftedConv(self.width, "up", dtype=self.dtype, name="first_up")(x))
    c = row_and_left(x, self.width, self.dtype)
    kept = [(u, c)]
    for scale in range(self.scales):
      if scale:
        u, c = resize(u, c, f"halve{scale}", stride=2)
        kept.append((u, c))
      for _ in range(self.blocks):
        u = gated("up", u, None)
        c = gated("corner", c, u)
        kept.append((u, c))
    u, c = kept.pop()
    for scale in range(self.scales):
      if scale:
        u, c = resize(u, c, f"double{scale}", double=True, gain=2.0)  # three of four places are zeros
      for _ in range(self.blocks + (scale > 0)):
        past = kept.pop()
        u = gated("up", u, past[0])
        c = gated("corner", c, jnp.concatenate([u, past[1]], -1))
    return self.elements(ShiftedConv(self.out, "here", name="out")(nn.elu(c)))
