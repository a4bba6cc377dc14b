"""One table for both directions: names of others' arrays <-> paths of our variables, and how an array is turned.

A table is written as a tree {part of ours: (part of theirs, what lies below it)}; parts are joined by "/" here and by
"." there. `{i}` is a number that both have, `{~i}` the same counted from the other end (of as many as the arrays
show); `(a|b)` are two names of one array, and a is written. Several names of theirs in one place, ("q", "k", "v"), are
one array here, joined along its last axis. A number that only theirs have stands for copies of one array.
"""

import dataclasses
import functools
import itertools
import re
from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import Any, NamedTuple

import numpy as np

from latents.errors import UserError, nearest

Arrays = Mapping[str, np.ndarray]
Tree = Mapping[str, tuple[Any, Any]]  # {ours: (theirs or several of them, Turn or Tree)}


class Turn(NamedTuple):
  """take: an array of theirs -> ours. give: back, bit for bit."""

  take: Callable[[np.ndarray], np.ndarray]
  give: Callable[[np.ndarray], np.ndarray]


def _linear(w: np.ndarray) -> np.ndarray:
  """[O,I] or, of a 1x1 convolution, [O,I,1,..] -> [I,O]."""
  return (w.reshape(w.shape[:2]) if w.ndim > 2 and set(w.shape[2:]) == {1} else w).T


SAME = Turn(lambda a: a, lambda a: a)
# torch keeps kernels as [out,in,*k], we as [*k,in,out]
KERNEL = Turn(lambda w: np.moveaxis(w, (0, 1), (-1, -2)), lambda w: np.moveaxis(w, (-1, -2), (0, 1)))
DENSE = Turn(_linear, lambda w: w.T)
POINTWISE = Turn(_linear, lambda w: w.T[..., None, None])  # a linear layer here, a 1x1 convolution of pictures there

CONV = {"kernel": ("weight", KERNEL), "bias": ("bias", SAME)}
LINEAR = {"kernel": ("weight", DENSE), "bias": ("bias", SAME)}
CONV1 = {"kernel": ("weight", POINTWISE), "bias": ("bias", SAME)}
NORM = {"scale": ("weight", SAME), "bias": ("bias", SAME)}


class Row(NamedTuple):
  """ours: the path of one variable. theirs: its names, more than one where theirs is in parts."""

  ours: str
  theirs: tuple[str, ...]
  turn: Turn


@dataclasses.dataclass(frozen=True)
class Table:
  """The rows of a tree. ignored, idle: what names of theirs that nobody reads begin with, or end with. refused: (a part
  of names that are known to have no row, why)."""

  rows: tuple[Row, ...]
  ignored: tuple[str, ...] = ()
  refused: tuple[tuple[str, str], ...] = ()
  idle: tuple[str, ...] = ()

  @classmethod
  def of(
    cls, tree: Tree, ignored: tuple[str, ...] = (), refused: tuple[tuple[str, str], ...] = (),
    idle: tuple[str, ...] = (),
  ) -> "Table":  # fmt: skip
    """From a tree, see the module."""
    return cls(tuple(_rows(tree, (), ("",))), ignored, refused, idle)

  def find(self, names: Iterable[str]) -> tuple[dict[str, list[list[str]]], list[str]]:
    """Names of theirs -> ({path of ours: for each part, its names: more than one where there are copies}, names that
    have no row)."""
    hits, strange = [], []
    for name in names:
      found = next(((row, k, m.groupdict()) for row, k, p in self._patterns if (m := p.fullmatch(name))), None)
      if found is not None:
        hits.append((*found, name))
      elif not name.startswith(self.ignored or ("\0",)) and not name.endswith(self.idle or ("\0",)):
        strange.append(name)
    count = _counts(places for _, _, places, _ in hits)
    out: dict[str, list[list[str]]] = {}
    for row, k, places, name in hits:
      path = row.ours.format(**_ours(places, count))
      out.setdefault(path, [[] for _ in row.theirs])[k].append(name)
    return out, strange

  def take(self, arrays: Arrays, what: str) -> dict[str, np.ndarray]:
    """Arrays of theirs -> ours, float32. UserError that names an array without a row, copies that differ, or a part
    that is missing."""
    found, strange = self.find(arrays)
    if strange:
      known = [name for row in self.rows for name in row.theirs]
      raise UserError(f"{what} does not fit: {few('extra', strange, known)}")
    out = {}
    for path, parts in found.items():
      for k, names in enumerate(parts):
        if not names:
          raise UserError(f"{what} lacks a part of what {next(n for ns in parts for n in ns)} belongs to ({k + 1})")
        other = next((n for n in names[1:] if not np.array_equal(arrays[n], arrays[names[0]], equal_nan=True)), None)
        if other is not None:
          raise UserError(f"{what}: {other} is no copy of {names[0]}, and one array has to serve for both")
      held = [arrays[names[0]] for names in parts]
      if wrong := next((names[0] for names, a in zip(parts, held, strict=True) if not np.isfinite(a).all()), None):
        raise UserError(f"{what}: {wrong} holds numbers that are not finite")
      out[path] = self._turned(path, held)
    return out

  def give(self, ours: Arrays) -> dict[str, np.ndarray]:
    """Ours -> theirs, every copy written. UserError that names a variable without a row."""
    hits = [(*self._row(path), array) for path, array in ours.items()]
    count = _counts(places for _, places, _ in hits)
    out = {}
    for row, places, array in hits:
      parts = np.split(array, len(row.theirs), -1) if len(row.theirs) > 1 else [array]
      for name, part in zip(row.theirs, parts, strict=True):
        for full in _written(name, places, count):
          out[full] = np.ascontiguousarray(row.turn.give(part))
    return out

  def why(self, strange: list[str], otherwise: str) -> str:
    """Why names of theirs have no row, where that is known."""
    return next((why for part, why in self.refused if any(part in name for name in strange)), otherwise)

  def names(self, path: str, among: Iterable[str]) -> list[str]:
    """What they call a variable of ours. among: the paths of all variables, from which is counted."""
    row, places = self._row(path)
    count = _counts(self._row(other)[1] for other in {*among, path})
    return [next(_written(name, places, count)) for name in row.theirs]

  def shape(self, path: str, shape: tuple[int, ...]) -> tuple[int, ...]:
    """The shape of ours -> the shape of (the first part of) theirs."""
    row, _ = self._row(path)
    array = np.broadcast_to(np.float32(0), (*shape[:-1], shape[-1] // len(row.theirs)) if shape else ())
    return row.turn.give(array).shape

  def _turned(self, path: str, arrays: list[np.ndarray]) -> np.ndarray:
    turn = self._row(path)[0].turn
    parts = [np.asarray(turn.take(np.asarray(a)), np.float32) for a in arrays]
    return np.ascontiguousarray(parts[0] if len(parts) == 1 else np.concatenate(parts, -1))

  def _row(self, path: str) -> tuple[Row, dict[str, str]]:
    for row in self.rows:
      if match := re.fullmatch(_pattern(row.ours), path):
        return row, match.groupdict()
    raise UserError(f"the layout has no place for '{path}'{nearest(path, [row.ours for row in self.rows])}")

  @functools.cached_property
  def _patterns(self) -> list[tuple[Row, int, re.Pattern[str]]]:
    return [(row, k, re.compile(_pattern(name))) for row in self.rows for k, name in enumerate(row.theirs)]


def _rows(tree: Tree, ours: tuple[str, ...], theirs: tuple[str, ...]) -> Iterator[Row]:
  for part, (names, below) in tree.items():
    names = (names,) if isinstance(names, str) else names
    here = tuple(".".join(filter(None, (a, b))) for a, b in itertools.product(theirs, names))
    if isinstance(below, Turn):
      yield Row("/".join((*ours, part)), here, below)
    else:
      yield from _rows(below, (*ours, part), here)


def _pattern(name: str) -> str:
  """The regular expression of a name: `{i}` is a number called i, `{~i}` one called i_."""
  text = re.sub(r"\\\(|\\\)|\\\|", lambda m: m[0][1:], re.escape(name))
  text = re.sub(r"\((?=[^?])", "(?:", text)
  return re.sub(r"\\\{(\\?~)?(\w)\\\}", lambda m: f"(?P<{m[2]}{'_' if m[1] else ''}>[0-9]+)", text)


def _counts(found: Iterable[Mapping[str, str]]) -> dict[str, int]:
  """How many there are of each number: one more than the largest."""
  out: dict[str, int] = {}
  for places in found:
    for letter, value in places.items():
      out[letter[0]] = max(out.get(letter[0], 0), int(value) + 1)
  return out


def _ours(places: Mapping[str, str], count: Mapping[str, int]) -> dict[str, int]:
  return {k[0]: count[k[0]] - 1 - int(v) if k.endswith("_") else int(v) for k, v in places.items()}


def _written(name: str, places: Mapping[str, str], count: Mapping[str, int]) -> Iterator[str]:
  """A name of theirs with its numbers; all copies where it has a number that ours has not."""
  name = re.sub(r"\(([^|)]*)\|[^)]*\)", r"\1", name)
  letters = dict.fromkeys(re.findall(r"\{~?(\w)\}", name))
  spans = [[int(places[k])] if k in places else range(count.get(k, 1)) for k in letters]
  for values in itertools.product(*spans):
    at = dict(zip(letters, values, strict=True))
    yield re.sub(r"\{(~?)(\w)\}", lambda m, at=at: str(count[m[2]] - 1 - at[m[2]] if m[1] else at[m[2]]), name)


def few(what: str, names: list[str], known: Iterable[str] = ()) -> str:
  """'3 missing (a, b, ...)', the first with the nearest of `known`."""
  close = nearest(names[0], known)
  return f"{len(names)} {what} ({names[0]}{close}{''.join(f', {n}' for n in names[1:3])}{', ...' * (len(names) > 3)})"
