"""A network over an array that is too large for it: tile after tile, all of one shape, joined again.

Positions are counted in cells, the positions of the latent: a tile of n cells has n * source numbers along an axis of
what is read, n * made of what comes out. A network is local where an output cell reads only cells nearby, and always
the same ones: then tiles overlap by what it reads, what stands too near a tile's edge is left out, and the whole is
what the network makes of it at once, but for rounding. Else (group norm, attention) tiles overlap by a quarter and are
blended linearly there, as diffusers' `tiled_encode` and `tiled_decode` do, but for the outer quarter of each overlap,
which saw padding in place of the picture; how far tiles differ where they overlap says what blending costs.
"""

import dataclasses
import functools
import math
from collections.abc import Callable, Iterator, Sequence

import numpy as np

from latents.errors import UserError

OVERLAP = 4  # tiles that are blended overlap by so much of one: a quarter, as in diffusers
ROUNDING = 2e-7  # changes below so much, in standard deviations, are those of rounding
SAME = 1e-2  # how far, in standard deviations, a network's answer to the same cells elsewhere may lie: rounding
STRIP = 4  # tiles laid end to end, one cell wide: how far is looked for a network's reach


@dataclasses.dataclass(frozen=True)
class Part:
  """A network of tiles: apply is [B,*(t source),C] -> [B,*(t made),E] float for any t cells. tile: the t that is meant;
  source, made: numbers per cell and axis. name: for messages."""

  name: str
  apply: Callable[[np.ndarray], np.ndarray]
  tile: tuple[int, ...]
  source: tuple[int, ...]
  made: tuple[int, ...]


@dataclasses.dataclass(frozen=True)
class Reach:
  """How many cells before and after its own an output cell reads, by axis; 0 along axes that are not cut."""

  before: tuple[int, ...]
  after: tuple[int, ...]


def found(part: Part, cut: Sequence[bool], channels: int) -> Reach | None:
  """The reach of a network, found from itself; None where it is not local along an axis that is cut. C = channels.

  One cell of noise is made NaN, and in turn other noise: the cells of which something changes are those that read it.
  (NaN goes through every sum and product, also one with a weight of 0, but some compilers' maximum drops it; a change
  comes through that, as far as rounding lets it.) It takes the memory of a tile. UserError for a local network of which
  no tile of this size holds what a cell reads: it names a size.
  """
  tile = part.tile
  if not any(cut):
    return Reach((0,) * len(tile), (0,) * len(tile))
  reach = _seen(part, tile, cut, channels)
  if reach is None:
    for axis, wanted in enumerate(cut):
      strip = tuple(STRIP * n if i == axis else 1 for i, n in enumerate(tile))
      try:
        long = _seen(part, strip, [i == axis for i in range(len(tile))], channels) if wanted else None
      except UserError:  # it takes no strips
        long = None
      if long is not None:
        least = 2 * max(long.before[axis], long.after[axis]) + 3
        if least > tile[axis]:
          wide, before, after, enough = (
            _side(part, cells, axis) for cells in (tile, long.before, long.after, (least,) * len(tile))
          )
          raise UserError(
            f"a tile of {wide} is too small: the {part.name} reads {before} before and {after} after; from {enough} on "
            "tiles give what the whole picture gives"
          )
    return None
  return reach if _moves(part, reach, cut, channels) else None


def _side(part: Part, cells: Sequence[int], axis: int) -> str:
  return f"{cells[axis] * max(part.source[axis], part.made[axis])} pixels"


def _noise(part: Part, cells: Sequence[int], channels: int) -> np.ndarray:
  shape = (1, *(n * s for n, s in zip(cells, part.source, strict=True)), channels)
  return np.random.default_rng(0).uniform(-1, 1, shape).astype(np.float32)


def _seen(part: Part, cells: tuple[int, ...], cut: Sequence[bool], channels: int) -> Reach | None:
  """The reach along the axes that are cut, on a grid of so many cells; None where it comes to an edge."""
  x = _noise(part, cells, channels)
  middle = tuple(n // 2 for n in cells)
  cell = (0, *(slice(m * s, (m + 1) * s) for m, s in zip(middle, part.source, strict=True)))
  y = part.apply(x)[0]
  least, reads = ROUNDING * float(y.std()), np.zeros(y.shape[:-1], bool)
  for other in (np.full_like(x[cell], np.nan), -x[cell], x[cell][..., ::-1] + 1):
    changed = x.copy()
    changed[cell] = other
    reads |= ~(np.abs(part.apply(changed)[0] - y) <= least).all(-1)
  before, after = [], []
  for axis, (n, m, made) in enumerate(zip(cells, middle, part.made, strict=True)):
    if not cut[axis]:
      before.append(0)
      after.append(0)
      continue
    others = tuple(i for i in range(reads.ndim) if i != axis)
    (at,) = np.nonzero(reads.any(others).reshape(n, made).any(-1))
    if not at.size or at[0] == 0 or at[-1] == n - 1:
      return None
    before.append(max(int(at[-1]) - m, 0))
    after.append(max(m - int(at[0]), 0))
  return Reach(tuple(before), tuple(after))


def _moves(part: Part, reach: Reach, cut: Sequence[bool], channels: int) -> bool:
  """Whether the network makes the same of the same cells in another place, a cell further along each axis."""
  x = _noise(part, [n + c for n, c in zip(part.tile, cut, strict=True)], channels)
  views, kept = [], []
  for moved in (0, 1):
    source = zip(part.tile, cut, part.source, strict=True)
    views.append(part.apply(x[(slice(None), *(slice(c * moved * s, (n + c * moved) * s) for n, c, s in source))]))
    axes = zip(part.tile, cut, reach.before, reach.after, part.made, strict=True)
    inside = ((b + c * (1 - moved), n - a - c * moved, made) for n, c, b, a, made in axes)
    kept.append(views[-1][(slice(None), *(slice(first * made, last * made) for first, last, made in inside))])
  return bool(np.abs(kept[0] - kept[1]).max() <= SAME * max(float(views[0].std()), 1e-12))


def joined(part: Part, x: np.ndarray, reach: Reach | None) -> tuple[np.ndarray, float]:
  """x [B,*(s source),C], no axis smaller than the tile -> ([B,*(s made),E], error). error: 0 with a reach; else an
  estimate of what the result is off from that of the whole, RMS, as a part of its standard deviation: the difference of
  tiles where both count, over sqrt(2), as of two that err alone. It knows nothing of what all tiles get wrong alike."""
  cells = tuple(n // s for n, s in zip(x.shape[1:-1], part.source, strict=True))
  return _exact(part, x, cells, reach) if reach else _blended(part, x, cells)


def _starts(size: int, tile: int, step: int) -> list[int]:
  """The first cells of tiles that cover an axis; the last tile ends where the axis ends."""
  return [*range(0, size - tile, step), size - tile]


def _tiles(part: Part, x: np.ndarray, starts: Sequence[list[int]]) -> Iterator[tuple[tuple[int, ...], np.ndarray]]:
  """(the first cell by axis, what the network makes of the tile)."""
  for at in np.ndindex(*map(len, starts)):
    first = tuple(starts[axis][i] for axis, i in enumerate(at))
    axes = zip(first, part.tile, part.source, strict=True)
    yield first, part.apply(np.ascontiguousarray(x[(slice(None), *(slice(f * s, (f + n) * s) for f, n, s in axes))]))


def _exact(part: Part, x: np.ndarray, cells: tuple[int, ...], reach: Reach) -> tuple[np.ndarray, float]:
  axes = list(zip(cells, part.tile, reach.before, reach.after, strict=True))
  out: np.ndarray | None = None
  for first, y in _tiles(part, x, [_starts(size, n, n - b - a) for size, n, b, a in axes]):
    if out is None:
      out = np.empty((len(x), *(n * m for n, m in zip(cells, part.made, strict=True)), y.shape[-1]), y.dtype)
    within, whole = [slice(None)], [slice(None)]
    for f, (size, n, b, a), made in zip(first, axes, part.made, strict=True):
      low, high = (0 if f == 0 else b), (n if f == size - n else n - a)  # at the picture's edge all of the tile holds
      within.append(slice(low * made, high * made))
      whole.append(slice((f + low) * made, (f + high) * made))
    out[tuple(whole)] = y[tuple(within)]
  assert out is not None
  return out, 0.0


def _blended(part: Part, x: np.ndarray, cells: tuple[int, ...]) -> tuple[np.ndarray, float]:
  overlap = [min(max(n // OVERLAP, 1), n - 1) for n in part.tile]
  starts = [_starts(size, n, n - o) for size, n, o in zip(cells, part.tile, overlap, strict=True)]
  total = weights = None
  squares, count = 0.0, 0.0
  for first, y in _tiles(part, x, starts):
    y = y.astype(np.float32)
    if total is None or weights is None:
      shape = tuple(n * m for n, m in zip(cells, part.made, strict=True))
      total, weights = np.zeros((len(x), *shape, y.shape[-1]), np.float32), np.zeros((*shape, 1), np.float32)
    place = tuple(slice(f * m, (f + n) * m) for f, n, m in zip(first, part.tile, part.made, strict=True))
    ramps = [
      _ramp(n * m, o * m, f > 0, f < size - n)
      for f, n, m, o, size in zip(first, part.tile, part.made, overlap, cells, strict=True)
    ]
    w = functools.reduce(np.multiply, np.ix_(*ramps))[..., None]
    before, now = weights[place], np.broadcast_to(w, weights[place].shape)
    both = 2 * before * now / (before + now + 1e-9)  # 1 where two tiles count alike, 0 where one counts alone
    mean = total[(slice(None), *place)] / np.maximum(before, 1e-9)
    squares += float((both * np.square(y - mean)).sum(dtype=np.float64))
    count += float(both.sum(dtype=np.float64)) * len(y) * y.shape[-1]
    total[(slice(None), *place)] += w * y
    weights[place] += w
  assert total is not None and weights is not None
  out = total / weights
  return out, math.sqrt(squares / max(count, 1e-12) / 2) / max(float(out.std()), 1e-12)


def _ramp(size: int, overlap: int, begins: bool, ends: bool) -> np.ndarray:
  """[size] weights of a tile along an axis: at an end where another tile goes on, 0 in the outer quarter of the
  overlap, which saw padding where there is picture, and then rising linearly to 1 at the other's outer quarter."""
  w, outer = np.ones(size, np.float32), overlap // 4
  inner = overlap - 2 * outer
  rise = np.clip((np.arange(overlap, dtype=np.float32) - outer + 0.5) / max(inner, 1), 0.0, 1.0)
  if begins and overlap:
    w[:overlap] *= rise
  if ends and overlap:
    w[-overlap:] *= rise[::-1]
  return w
