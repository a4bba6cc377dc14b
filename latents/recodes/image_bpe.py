"""Byte-pair encoding of a plane of codes (Zhang et al. 2024, arXiv:2410.02155), corrected so that it can be undone."""

import dataclasses
import functools
import heapq

import jax.numpy as jnp
import numpy as np

from latents.errors import UserError
from latents.recodes.base import Recode, Table, Walk
from latents.types import Array

ACROSS, DOWN = 0, 1
Keys = tuple[np.ndarray, np.ndarray]  # (keys of pairs, how often each occurs)


@dataclasses.dataclass(frozen=True, kw_only=True)
class ImageBPE(Recode):
  """Codes on a line [T] or a plane [H,W] -> tokens that are rectangles of codes.

  The commonest pair of neighbours becomes a token, `merges` times. A pair is two rectangles side by side of one height,
  row for row, or one above the other of one width; its orientation belongs to the token, so that a token is one
  rectangle of codes and nothing else. Of equally common pairs the least (a, b, orientation) comes first; a pair that
  occurs once is not merged. Within a run a a a the first two are merged; all overlapping pairs are counted, as in the
  textbook on a line, which this is on [T]. An example's tokens stand in raster order of their top left codes, and
  each goes back to the first free place: that place is the top left one of the rectangle that covers it, for any other
  place of it comes later in raster order.

  Where the paper's published code (Being-VL-0.5, vbpe.py) differs, by the catalogue's reading: it looks at the upper
  triangle of the table of pairs alone, so that (a,a) and (b,a) with b > a are never merged, flat regions first of all;
  after the first merge it goes on along the flattened line; pairs across and down share one number, so that a
  token does not say its shape. Paper: 8,192 merges over 8,192 codes on 32 x 32.
  """

  merges: int

  entry = "merges"

  def tokens(self, vocab: int) -> int:
    """The codes and the merges, also where fewer pairs are found."""
    if self.merges < 0:
      raise UserError(f"recode.merges is {self.merges}: it must be at least 0")
    return vocab + self.merges

  def fit(self, codes: np.ndarray, vocab: int) -> Table:
    """{"merges": [M,3] int32 (a, b, orientation); token vocab + i is pair i}."""
    plane = Plane(codes, vocab, self.merges)
    counts: dict[int, int] = {}  # of pairs that occur twice at least: a pair of old tokens is never made anew
    heap: list[tuple[int, int]] = []

    def note(keys: Keys) -> None:
      for key, count in zip(*(array.tolist() for array in keys), strict=True):
        if count > 1:
          counts[key] = count
          heapq.heappush(heap, (-count, key))

    note(plane.pairs(plane.starts()))
    found: list[tuple[int, int, int]] = []
    while heap and len(found) < self.merges:
      count, key = heapq.heappop(heap)
      if (now := counts.get(key, 0)) != -count:  # there are fewer now than when it was noted
        if now > 1:
          heapq.heappush(heap, (-now, key))
        continue
      pair = plane.unpacked(key)
      lost, made = plane.merge(*pair, counted=True)
      for other, number in zip(*(array.tolist() for array in lost), strict=True):
        if other in counts:
          counts[other] -= number
      counts.pop(key, None)
      note(made)
      found.append(pair)
    return {"merges": np.asarray(found, np.int32).reshape(-1, 3)}

  def check(self, table: Table, grid: tuple[int, ...]) -> None:
    """See `Recode.check`: every merge is of two tokens before it, whose rectangles fit together and on the grid."""
    merges, vocab, most = np.asarray(table["merges"]), int(table["vocab"]), (1, *grid)[-2:]
    shapes = [(1, 1)] * vocab
    right = merges.ndim == 2 and merges.shape[1:] == (3,) and merges.dtype.kind == "i" and len(merges) <= self.merges
    for a, b, orientation in merges.tolist() if right else ():
      right = right and 0 <= a < len(shapes) and 0 <= b < len(shapes) and orientation in (ACROSS, DOWN)
      if not right:
        break
      (height, width), (low, wide) = shapes[a], shapes[b]
      right = height == low if orientation == ACROSS else width == wide
      shapes.append((height, width + wide) if orientation == ACROSS else (height + low, width))
      right = right and shapes[-1][0] <= most[0] and shapes[-1][1] <= most[1]
    if not right:
      raise UserError(f"its merges are not {self.merges} pairs of rectangles on {most}, or fewer")

  def merge(self, table: Table, codes: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """See `Recode.merge`: the merges in their order, each wherever it applies."""
    plane = Plane(codes, int(table["vocab"]), len(table["merges"]))
    for pair in table["merges"].tolist():
      plane.merge(*pair)
    starts = plane.starts()
    return plane.ids[starts], np.bincount(starts // plane.area, minlength=len(codes))

  def walk(self, table: Table, grid: tuple[int, ...]) -> Walk:
    """See `Recode.walk`: the first free place, as `expand` finds it."""
    blocks = rectangles(tuple(map(tuple, table["merges"].tolist())), int(table["vocab"]))
    sides = np.zeros((1 + self.tokens(int(table["vocab"])), 2), np.int32)
    sides[1 : len(blocks) + 1] = [block.shape for block in blocks]  # END, and a merge that was never found: nothing
    height, width = (1, *grid)[-2:]
    row, column = (a.reshape(-1) for a in np.mgrid[:height, :width])  # numpy: it may be a trace that asks first

    def step(taken: Array, token: Array) -> tuple[Array, Array]:
      at = jnp.argmin(taken, 1)
      size, full = jnp.asarray(sides)[token], taken.all(1, keepdims=True)
      top, left = (jnp.asarray(a)[at][:, None] for a in (row, column))
      inside = (row >= top) & (row < top + size[:, :1]) & (column >= left) & (column < left + size[:, 1:])
      taken = taken | (inside & ~full)
      return taken, jnp.where(taken.all(1), height * width - 1, jnp.argmin(taken, 1)).astype(jnp.int32)

    return Walk(lambda batch: jnp.zeros((batch, height * width), bool), step)

  def expand(self, table: Table, tokens: np.ndarray, grid: tuple[int, ...]) -> tuple[np.ndarray, int]:
    """See `Recode.expand`: each token at the first free place; of one that overlaps others or the edge, the codes that
    have a place stay."""
    blocks = rectangles(tuple(map(tuple, table["merges"].tolist())), int(table["vocab"]))
    height, width = (1, *grid)[-2:]
    made, at, lost = np.full(height * width, -1, np.int32), 0, 0
    plane = made.reshape(height, width)
    for token in tokens.tolist():
      if token >= len(blocks):  # a merge that was never found
        continue
      block = blocks[token]
      while at < made.size and made[at] >= 0:
        at += 1
      if at == made.size:
        lost += block.size
        continue
      row, column = divmod(at, width)
      place = plane[row : row + block.shape[0], column : column + block.shape[1]]
      free = place < 0
      place[free] = block[: place.shape[0], : place.shape[1]][free]
      lost += block.size - int(free.sum())
    return made.reshape(grid), lost


@functools.lru_cache(maxsize=8)
def rectangles(merges: tuple[tuple[int, int, int], ...], vocab: int) -> list[np.ndarray]:
  """The codes [h,w] of every token."""
  blocks = [np.full((1, 1), code, np.int32) for code in range(vocab)]
  for a, b, orientation in merges:
    blocks.append(np.concatenate([blocks[a], blocks[b]], 1 if orientation == ACROSS else 0))
  return blocks


class Plane:
  """Tokens of N examples while they are merged.

  owner: [N*H*W] the place of the top left code of the rectangle that a place belongs to. ids: [N*H*W] the token where
  a rectangle starts, -1 elsewhere. places: where each token started when it was last looked for, in order, so that a
  merge reads no more than it changes. heights, widths: of every token. A key is (a, b, orientation) as one number.
  """

  def __init__(self, codes: np.ndarray, vocab: int, merges: int):
    if codes.ndim not in (2, 3):
      raise UserError(f"ImageBPE merges codes on a line or a plane, these are on {codes.shape[1:]}")
    self.height, self.width = (1, *codes.shape[1:])[-2:]
    self.area = self.height * self.width
    self.ids = codes.reshape(-1).astype(np.int32)
    self.owner = np.arange(self.ids.size)
    self.most = vocab + merges
    order, counts = np.argsort(self.ids, kind="stable"), np.bincount(self.ids, minlength=vocab)
    self.places = np.split(order, np.cumsum(counts)[:-1])
    self.heights, self.widths = np.ones(self.most, np.int32), np.ones(self.most, np.int32)

  def starts(self) -> np.ndarray:
    """Where rectangles start, in raster order."""
    return np.flatnonzero(self.ids >= 0)

  def unpacked(self, key: int) -> tuple[int, int, int]:
    """(a, b, orientation)."""
    pair, orientation = divmod(key, 2)
    return *divmod(pair, self.most), orientation

  def after(self, starts: np.ndarray, orientation: int) -> np.ndarray:
    """starts [n] -> where the partner across or down starts; -1 where there is none that lies side by side."""
    ids = self.ids[starts]
    if orientation == ACROSS:
      step, sides = self.widths[ids], self.heights
      inside = starts % self.width + step < self.width
      other = np.where(inside, starts + step, 0)
    else:
      step, sides = self.heights[ids], self.widths
      inside = starts % self.area // self.width + step < self.height
      other = np.where(inside, starts + step * self.width, 0)
    there = inside & (self.ids[other] >= 0)
    there &= sides[self.ids[other]] == sides[ids]
    return np.where(there, other, -1)

  def before(self, starts: np.ndarray, orientation: int) -> np.ndarray:
    """starts [n] -> those whose partner it is; -1 where there is none."""
    place = starts % self.width if orientation == ACROSS else starts % self.area // self.width
    inside = place > 0
    other = self.owner[np.where(inside, starts - (1 if orientation == ACROSS else self.width), 0)]
    other = np.where(inside, other, 0)
    return np.where(inside & (self.after(other, orientation) == starts), other, -1)

  def pairs(self, starts: np.ndarray) -> Keys:
    """The pairs whose first member starts there."""
    edges = [(starts, self.after(starts, o), o) for o in (ACROSS, DOWN)]
    return self._count(edges)

  def around(self, starts: np.ndarray) -> Keys:
    """The pairs that have a member there, each once. starts: in order."""
    edges = []
    for orientation in (ACROSS, DOWN):
      edges.append((starts, self.after(starts, orientation), orientation))
      other = self.before(starts, orientation)
      place = np.minimum(np.searchsorted(starts, other), len(starts) - 1)
      edges.append((np.where(starts[place] == other, -1, other), starts, orientation))  # those are counted above
    return self._count(edges)

  def _count(self, edges: list[tuple[np.ndarray, np.ndarray, int]]) -> Keys:
    keys = []
    for first, second, orientation in edges:
      there = (first >= 0) & (second >= 0)
      a, b = self.ids[first[there]].astype(np.int64), self.ids[second[there]]
      keys.append((a * self.most + b) * 2 + orientation)
    return np.unique(np.concatenate(keys), return_counts=True)

  def merge(self, a: int, b: int, orientation: int, counted: bool = False) -> tuple[Keys, Keys]:
    """Make every such pair the next token. counted: the pairs that are gone, and those that are new."""
    none = np.zeros(0, np.int64), np.zeros(0, np.int64)
    first = self.places[a] = self.places[a][self.ids[self.places[a]] == a]
    second = self.after(first, orientation)
    there = (second >= 0) & (self.ids[second] == b)
    first, second = first[there], second[there]
    if a == b:
      first, second = self._apart(first, second, orientation)
    token = len(self.places)
    self.places.append(first)
    across = orientation == ACROSS
    height, width = int(self.heights[b]), int(self.widths[b])
    self.heights[token] = self.heights[a] + (0 if across else height)
    self.widths[token] = self.widths[a] + (width if across else 0)
    if not len(first):
      return none, none
    lost = self.around(np.sort(np.concatenate([first, second]))) if counted else none
    rows, columns = np.divmod(np.arange(height * width), width)
    self.owner[second[:, None] + rows * self.width + columns] = first[:, None]
    self.ids[second], self.ids[first] = -1, token
    return lost, self.around(first) if counted else none

  def _apart(self, first: np.ndarray, second: np.ndarray, orientation: int) -> tuple[np.ndarray, np.ndarray]:
    """Of runs a a a ... every other pair, from the run's start on."""
    order = np.arange(len(first))
    if orientation == DOWN:  # along columns
      example, place = np.divmod(first, self.area)
      row, column = np.divmod(place, self.width)
      order = np.lexsort((row, column, example))
    first, second = first[order], second[order]
    begins = np.ones(len(first), bool)
    begins[1:] = second[:-1] != first[1:]
    number = np.arange(len(first))
    kept = (number - np.maximum.accumulate(np.where(begins, number, 0))) % 2 == 0
    first, second = first[kept], second[kept]
    back = np.argsort(first)
    return first[back], second[back]
