"""What networks over the tokens of a grid share: how tokens become maps and maps logits; codes of coarser grids."""

import math

import flax.linen as nn
import jax.numpy as jnp
import numpy as np

from latents.backbones.stepwise import Stepwise
from latents.errors import UserError
from latents.nn.condition import entry, labels
from latents.nn.conv import Conv, nearest
from latents.nn.linear import Dense
from latents.nn.residual import Residual
from latents.types import Array, Cond

Grids = tuple[tuple[int, int, int], ...]  # (rows, columns, number of codes) of each


class Grid(Stepwise, kw_only=True):
  """A network over a grid, in raster order: see `Stepwise`.

  classes: labels; label `classes` is the null label, and cond None means it; 0 = no labels. dtype: of the products;
  what it gives is float32.
  """

  classes: int = 0
  dtype: str = "float32"

  @property
  def conditions(self) -> tuple[str, ...]:
    """Names of what it reads of a condition."""
    return ("label",) if self.classes else ()

  def label(self, cond: Cond | None, batch: int) -> Array | None:
    """[B] labels, with the null label where nothing is known; None where it reads none."""
    return labels(cond, self.classes, batch) if self.classes else None


class GridElements(Grid):
  """A network over the pixels of a picture, whole ones.

  shape: (H,W,C); L = H W elements of C numbers in [-1,1]. out: numbers for an element, which a head says.
  """

  shape: tuple[int, ...]
  out: int

  @property
  def length(self) -> int:
    """L, the number of elements."""
    return math.prod(self.shape[:2])

  @property
  def width_in(self) -> int:  # pyright: ignore[reportIncompatibleVariableOverride]
    """C, the numbers of an element."""
    return self.shape[2]

  def picture(self, x: Array) -> Array:
    """[B,L,C] -> [B,H,W,C]; UserError for another L or C and for a shape that is none."""
    if len(self.shape) != 3:
      raise UserError(f"{type(self).__name__} is over pixels of (H,W,C), not {self.shape}")
    if x.shape[1:] != (self.length, self.width_in):
      raise UserError(f"this {type(self).__name__} models [B,{self.length},{self.width_in}] numbers, got {x.shape}")
    return x.reshape(-1, *self.shape).astype(self.dtype)

  def elements(self, maps: Array) -> Array:
    """[B,H,W,out] -> [B,L,out] float32."""
    return maps.astype(jnp.float32).reshape(maps.shape[0], self.length, self.out)


class GridTokens(Grid):
  """A network over tokens of a grid, the channels of a place innermost.

  vocab: V. shape: (H,W), or (H,W,C) of C tokens a place (red, green, blue); L is their product. embed: numbers that are
  learned of a token; 0 = the token itself, as a number in [-1,1] (intensities).
  """

  vocab: int
  shape: tuple[int, ...]
  embed: int = 0

  @property
  def length(self) -> int:
    """L, the number of tokens."""
    return math.prod(self.shape)

  @property
  def groups(self) -> int:  # pyright: ignore[reportIncompatibleVariableOverride]
    """C, the tokens of a place."""
    return self.shape[2] if len(self.shape) == 3 else 1

  @property
  def vocabs(self) -> tuple[int, ...]:
    """One vocabulary for all."""
    return (self.vocab,)

  def maps(self, tokens: Array) -> Array:
    """tokens [B,L] -> [B,H,W,C * max(embed, 1)], feature k of channel k % C; within a `nn.compact`. UserError for
    another L and for a shape that is none."""
    if len(self.shape) not in (2, 3):
      raise UserError(f"{type(self).__name__} is over a grid (H,W) or (H,W,C), not {self.shape}")
    if tokens.ndim != 2 or tokens.shape[1] != self.length:
      raise UserError(f"this {type(self).__name__} models [B,{self.length}] tokens, got {tokens.shape}")
    grid = tokens.reshape(-1, *self.shape[:2], self.groups)
    if not self.embed:
      return (grid.astype(jnp.float32) * (2 / (self.vocab - 1)) - 1).astype(self.dtype)
    init = nn.initializers.normal(1.0)
    table = nn.Embed(self.vocab * self.groups, self.embed, dtype=self.dtype, embedding_init=init, name="embed")
    told = table(grid + self.vocab * jnp.arange(self.groups))
    return jnp.swapaxes(told, -1, -2).reshape(*grid.shape[:3], -1)

  def rows(self, maps: Array) -> Array:
    """[B,H,W,V * C], feature k of channel k % C -> logits [B,L,V] float32."""
    maps = maps.astype(jnp.float32).reshape(*maps.shape[:3], self.vocab, self.groups)
    return jnp.swapaxes(maps, -1, -2).reshape(maps.shape[0], self.length, self.vocab)


class LowerGridTokens(GridTokens):
  """`GridTokens` that may be told the codes of coarser grids.

  above: those grids, as `Above` has them; the condition must have "above" then. () = none. above_depth: of `Above`.
  """

  above: Grids = ()
  above_depth: int = 0

  @property
  def conditions(self) -> tuple[str, ...]:
    """Names of what it reads of a condition."""
    return (*super().conditions, *(("above",) if self.above else ()))

  def stack(self, cond: Cond | None, width: int) -> Array | None:
    """[B,H,W,width], or None where it is told none; within a `nn.compact`."""
    if not self.above:
      return None
    return Above(self.above, self.shape, width, self.above_depth, self.dtype, name="above_stack")(cond)


class Above(nn.Module):
  """cond -> [B,*shape,width]: what "above", the codes of coarser grids, says at every place of a grid.

  "above": [B,N] int32, grid after grid in raster order as in `Latent.codes` (or [B,h,w] of one). grids: each's rows,
  columns and number of codes; rows and columns divide those of `shape`. Every grid has its embedding and `depth`
  residual blocks, is repeated to `shape`, and all are added (VQ-VAE-2: Razavi et al. 2019, arXiv:1906.00446, the
  conditioning stack of its bottom prior). It is known always: "drop" does not concern it.
  """

  grids: Grids
  shape: tuple[int, ...]
  width: int
  depth: int = 0
  dtype: str = "float32"

  @nn.compact
  def __call__(self, cond: Cond | None) -> Array:
    """See the class. UserError where there is no "above", or one of other grids."""
    codes = entry(cond or {}, "above")
    codes = codes.reshape(codes.shape[0], -1)
    sizes = [rows * columns for rows, columns, _ in self.grids]
    if codes.shape[1] != sum(sizes):
      raise UserError(f"the network is told the codes above on grids of {self.grids}, but there are {codes.shape[1]}")
    found = 0
    parts = jnp.split(codes, np.cumsum(sizes)[:-1], 1)
    for i, ((rows, columns, vocab), part) in enumerate(zip(self.grids, parts, strict=True)):
      factor = self.shape[0] // rows
      if (factor * rows, factor * columns) != tuple(self.shape[:2]):
        raise UserError(f"a grid of {(rows, columns)} codes does not divide one of {tuple(self.shape[:2])}")
      table = nn.Embed(
        vocab, self.width, dtype=self.dtype, embedding_init=nn.initializers.normal(1.0), name=f"embed{i}"
      )
      h = table(part.reshape(-1, rows, columns))
      if self.depth:
        h = Conv(self.width, dtype=self.dtype, name=f"conv{i}")(h)
      for k in range(self.depth):
        h = Residual(self.width, self.width, dtype=self.dtype, name=f"grid{i}_block{k}")(h)
      found = found + nearest(h, factor)
    return found


class Told(nn.Module):
  """label [B] or None, above [B,H,W,E] or None -> what a layer adds to its `features`, [B,1,1,F], [B,H,W,F] or 0.

  A vector for each label, the null label included, and a 1-tap convolution of the map (arXiv:1606.05328, eq. 4 and 5);
  neither has a bias.
  """

  features: int
  classes: int
  dtype: str = "float32"

  @nn.compact
  def __call__(self, label: Array | None, above: Array | None) -> Array | float:
    """See the class."""
    found: Array | float = 0.0
    if label is not None:
      init = nn.initializers.normal(0.05)
      table = nn.Embed(self.classes + 1, self.features, dtype=self.dtype, embedding_init=init, name="label")
      found = table(label)[:, None, None]
    if above is not None:
      found = found + Dense(self.features, use_bias=False, dtype=self.dtype, name="above")(above)
    return found
