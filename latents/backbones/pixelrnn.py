"""Recurrence over a grid of tokens: PixelRNN, van den Oord, Kalchbrenner, Kavukcuoglu 2016, arXiv:1601.06759."""

import functools
from typing import Literal

import flax.linen as nn
import jax
import jax.numpy as jnp

from latents.backbones.grids import GridTokens, Told
from latents.backbones.pixelcnn import answers
from latents.nn.convolve import convolve
from latents.nn.masked_conv import MaskedConv, down
from latents.types import Array, Cond


def skew(x: Array) -> Array:
  """[B,H,W,C] -> [B,H,W+H-1,C]: row i begins i places later; zeros around (section 3.2)."""
  b, h, w, c = x.shape
  flat = jnp.pad(x, ((0, 0), (0, 0), (0, h), (0, 0))).reshape(b, -1, c)  # rows of W+H, read as rows of W+H-1
  return flat[:, : h * (w + h - 1)].reshape(b, h, w + h - 1, c)


def unskew(x: Array) -> Array:
  """[B,H,W+H-1,C] -> [B,H,W,C], the inverse of `skew`."""
  b, h, wide, c = x.shape
  flat = jnp.pad(x.reshape(b, -1, c), ((0, 0), (0, h), (0, 0)))
  return flat.reshape(b, h, wide + 1, c)[:, :, : wide - h + 1]


def cell(given: Array, state: Array) -> tuple[Array, Array]:
  """given [...,4 E] (gates o, f, i, and g), state c [...,E] -> the new h and c (eq. 3)."""
  o, f, i, g = jnp.split(given, 4, -1)
  c = nn.sigmoid(f) * state + nn.sigmoid(i) * jnp.tanh(g)
  return nn.sigmoid(o) * jnp.tanh(c), c


class RowLSTM(nn.Module):
  """[B,H,W,C] -> [B,H,W,width]: row by row from the top, with 3 taps within a row and 3 of the state of the row above.

  What a place sees is a triangle above it (section 3.1). The first row's state is learned, the same at all places.
  """

  width: int
  groups: int
  dtype: str = "float32"

  @nn.compact
  def __call__(self, x: Array) -> Array:
    """See the class."""
    given = MaskedConv(4 * self.width, (1, 3), "B", self.groups, 4, dtype=self.dtype, name="input")(x)
    kernel = self.param("state", nn.initializers.lecun_normal(), (3, self.width, 4 * self.width)).astype(self.dtype)
    first = self.param("first", nn.initializers.zeros, (2, self.width)).astype(self.dtype)

    def step(carry: tuple[Array, Array], row: Array) -> tuple[tuple[Array, Array], Array]:
      h, c = cell(row + convolve(carry[0], kernel), carry[1])
      return (h, c), h

    h, c = (jnp.broadcast_to(a, (x.shape[0], x.shape[2], self.width)) for a in first)
    return jnp.swapaxes(jax.lax.scan(step, (h, c), jnp.swapaxes(given, 0, 1))[1], 0, 1)


class DiagonalBiLSTM(nn.Module):
  """[B,H,W,C] -> [B,H,W,width]: diagonal by diagonal from the top, one LSTM from the left and one from the right.

  A state is made of those beside and above it: they run over the columns of skewed maps (section 3.2), both at once.
  Beyond the edges stands a learned state. The right one has seen what comes after in its row, so it is shifted down by
  one row before they are added.
  """

  width: int
  groups: int
  dtype: str = "float32"

  @nn.compact
  def __call__(self, x: Array) -> Array:
    """See the class."""
    (batch, height, width, _), four = x.shape, 4 * self.width
    given = [
      MaskedConv(four, (1, 1), "B", self.groups, 4, dtype=self.dtype, name=f"input_{side}")(turned)
      for side, turned in (("left", x), ("right", x[:, :, ::-1]))
    ]
    init = nn.initializers.variance_scaling(1.0, "fan_in", "normal", in_axis=1, batch_axis=0)
    kernel = self.param("state", init, (2, 2 * self.width, four)).astype(self.dtype)  # of the one above, then beside
    first = self.param("first", nn.initializers.zeros, (2, 2, 1, 1, self.width)).astype(self.dtype)
    edge = [jnp.broadcast_to(a, (2, batch, height, self.width)) for a in first]

    def step(carry: tuple[Array, Array], at: tuple[Array, Array]) -> tuple[tuple[Array, Array], Array]:
      column, number = at
      h, c = carry
      seen = jnp.concatenate([jnp.concatenate([edge[0][:, :, :1], h[:, :, :-1]], 2), h], -1)
      new = cell(column + jnp.einsum("dbhe,def->dbhf", seen, kernel), c)
      begun = (number >= jnp.arange(height))[:, None]  # a row that has not begun has the state of the edge
      h, c = (jnp.where(begun, now, old) for now, old in zip(new, edge, strict=True))
      return (h, c), h

    columns = skew(jnp.concatenate(given)).reshape(2, batch, height, -1, four)
    numbers = jnp.arange(width + height - 1)
    states = jax.lax.scan(step, (edge[0], edge[1]), (jnp.moveaxis(columns, 3, 0), numbers))[1]
    states = jnp.moveaxis(states, 0, 3).reshape(2 * batch, height, -1, self.width)
    left, right = jnp.split(unskew(states), 2)
    return left + down(right[:, :, ::-1])


class PixelRNN(GridTokens):
  """tokens [B,L] of a grid, cond or None -> logits [B,L,V]: `GridTokens`, mask A first, then LSTM layers.

  `first` x `first` taps of mask A give 2 width features; a layer is an LSTM of `width`, 1 tap back to 2 width, added
  (figure 4). kind: "row" (`RowLSTM`), or "diagonal" (`DiagonalBiLSTM`), which sees all that comes before, but for one
  place: the last of the row above has told no place of its row (mask A), so it is seen by the first layer's taps or not
  at all. The defaults are CIFAR-10's. A label is a bias before 2 width. hidden: features before the logits. The
  paper's connections from every layer to the output are left out.
  """

  kind: Literal["row", "diagonal"] = "diagonal"
  width: int = 128
  depth: int = 12
  first: int = 7
  hidden: int = 1024

  @nn.compact
  def __call__(self, tokens: Array, cond: Cond | None, *, train: bool = False) -> Array:
    """See the class."""
    masked = functools.partial(MaskedConv, groups=self.groups, dtype=self.dtype)
    h = masked(2 * self.width, (self.first, self.first), "A", name="first")(self.maps(tokens))
    label = self.label(cond, tokens.shape[0])
    for i in range(self.depth):
      layer = RowLSTM if self.kind == "row" else DiagonalBiLSTM
      r = layer(self.width, self.groups, self.dtype, name=f"layer{i}")(h)
      r = r + Told(self.width, self.classes, self.dtype, name=f"layer{i}_told")(label, None)
      h = h + masked(2 * self.width, (1, 1), name=f"layer{i}_out")(r)
    return self.rows(answers(masked, self.hidden, h, self.vocab * self.groups))
