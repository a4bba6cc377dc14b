"""Masked convolutions over a grid of tokens: PixelCNN and Gated PixelCNN.

van den Oord, Kalchbrenner, Kavukcuoglu 2016, arXiv:1601.06759, and van den Oord et al. 2016, arXiv:1606.05328.
"""

import functools

import flax.linen as nn
import jax.numpy as jnp

from latents.backbones.grids import GridTokens, LowerGridTokens, Told
from latents.nn.convolve import FlaxConv
from latents.nn.linear import Dense
from latents.nn.masked_conv import Mask, MaskedConv, down
from latents.types import Array, Cond


def answers(masked: functools.partial, hidden: int, h: Array, features: int) -> Array:
  """[B,H,W,E] -> [B,H,W,features]: ReLU, 1 tap, ReLU, 1 tap (arXiv:1601.06759, table 1), 0 at the start."""
  h = masked(hidden, (1, 1), name="hidden")(nn.relu(h))
  return masked(features, (1, 1), zero=True, name="out")(nn.relu(h))


class PixelCNN(GridTokens):
  """tokens [B,L] of a grid, cond or None -> logits [B,L,V]: `GridTokens`, mask A first, then residual blocks.

  `first` x `first` taps of mask A give 2 width features; a block is ReLU and a 1-tap convolution to `width`, ReLU and 3
  x 3 of mask B, ReLU and 1 tap back to 2 width, added (figure 5). The defaults are CIFAR-10's. A label is a bias of
  every 3 x 3 convolution. There is a blind spot: r rows up it sees no further to the right than r + first // 2 - 1.
  hidden: features before the logits. The paper's connections from every layer to the output are left out.
  """

  width: int = 128
  depth: int = 15
  first: int = 7
  hidden: int = 1024

  @nn.compact
  def __call__(self, tokens: Array, cond: Cond | None, *, train: bool = False) -> Array:
    """See the class."""
    masked = functools.partial(MaskedConv, groups=self.groups, dtype=self.dtype)
    h = masked(2 * self.width, (self.first, self.first), "A", name="first")(self.maps(tokens))
    label = self.label(cond, tokens.shape[0])
    for i in range(self.depth):
      r = masked(self.width, (1, 1), name=f"block{i}_in")(nn.relu(h))
      r = masked(self.width, (3, 3), name=f"block{i}_conv")(nn.relu(r))
      r = r + Told(self.width, self.classes, self.dtype, name=f"block{i}_told")(label, None)
      h = h + masked(2 * self.width, (1, 1), name=f"block{i}_out")(nn.relu(r))
    return self.rows(answers(masked, self.hidden, h, self.vocab * self.groups))


def gate(x: Array) -> Array:
  """[...,2 E] -> [...,E]: tanh of the first half times the sigmoid of the second (eq. 2)."""
  a, b = jnp.split(x, 2, -1)
  return jnp.tanh(a) * nn.sigmoid(b)


class GatedLayer(nn.Module):
  """(v, h) [B,H,W,*] -> (v, h, skip) of `width`, `width` and `skip` features (figure 2).

  v, the vertical stack, sees its row and those above, with `size` // 2 + 1 rows of `size` taps, and is shifted down by
  one row before h is told of it; h, the horizontal one, has 1 x `size` taps of mask `mask`, and never tells v, which
  would see what comes after. residual: h is added to what becomes of it; v is not.
  """

  width: int
  skip: int
  size: int
  mask: Mask
  groups: int
  classes: int
  residual: bool
  dtype: str = "float32"

  @nn.compact
  def __call__(self, v: Array, h: Array, label: Array | None, above: Array | None) -> tuple[Array, Array, Array]:
    """See the class."""
    masked = functools.partial(MaskedConv, groups=self.groups, dtype=self.dtype)
    two, half = 2 * self.width, self.size // 2
    padding = [(half, 0), (half, half)]
    v = FlaxConv(two, (half + 1, self.size), padding=padding, dtype=self.dtype, name="vertical")(v)
    new = masked(two, (1, self.size), self.mask, parts=2, name="horizontal")(h)
    new = new + Dense(two, use_bias=False, dtype=self.dtype, name="between")(down(v))
    v = gate(v + Told(two, self.classes, self.dtype, name="told_v")(label, above))
    new = gate(new + Told(two, self.classes, self.dtype, name="told_h")(label, above))
    skip = masked(self.skip, (1, 1), name="skip")(new)
    new = masked(self.width, (1, 1), name="out")(new)
    return v, h + new if self.residual else new, skip


class GatedPixelCNN(LowerGridTokens):
  """tokens [B,L] of a grid, cond or None -> logits [B,L,V]: `LowerGridTokens`, in two stacks without a blind spot.

  A layer of `first` taps and mask A, then `depth` of `size` taps (`GatedLayer`); the logits are made of the sum of all
  layers' skips, `hidden` features. No dropout. The defaults are ImageNet-32's. A label is a vector in every
  gate, and the codes above are a map in every gate.
  """

  width: int = 384
  depth: int = 20
  size: int = 5
  first: int = 7
  hidden: int = 1024

  @nn.compact
  def __call__(self, tokens: Array, cond: Cond | None, *, train: bool = False) -> Array:
    """See the class."""
    layer = functools.partial(
      GatedLayer, self.width, self.hidden, groups=self.groups, classes=self.classes, dtype=self.dtype
    )
    v = h = self.maps(tokens)
    told = self.label(cond, tokens.shape[0]), self.stack(cond, self.width)
    v, h, skips = layer(size=self.first, mask="A", residual=False, name="layer0")(v, h, *told)
    for i in range(1, self.depth + 1):
      v, h, skip = layer(size=self.size, mask="B", residual=True, name=f"layer{i}")(v, h, *told)
      skips = skips + skip
    masked = functools.partial(MaskedConv, groups=self.groups, dtype=self.dtype)
    return self.rows(answers(masked, self.hidden, skips, self.vocab * self.groups))
