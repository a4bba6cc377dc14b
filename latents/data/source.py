"""The contract of a data source, and the small kinds of random-access records that sources hand over."""

import dataclasses
import hashlib
import os
import warnings
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Any, ClassVar, Literal, Protocol, runtime_checkable

import numpy as np

from latents.errors import UserError

Split = Literal["train", "test"]
Example = dict[str, Any]
Size = int | tuple[int, int]  # pixels: the side of a square, or (height, width)

STAND_IN = "stand_in"  # an entry of an example that stands in for a broken one


class Broken(Exception):
  """A file or record that cannot be decoded; the message is the reason, in a few words."""


@runtime_checkable
class Records(Protocol):
  """Random access to decoded examples. `skipped` names the files that were left out, with the reason."""

  skipped: tuple[str, ...]

  def __len__(self) -> int: ...

  def __getitem__(self, i: int) -> Example: ...


def place() -> Any:
  """A field that says where on this machine data lie: no part of the address of an experiment.

  It was one in runs made before 2026-12, whose stages are still found (`declare.former_addresses`).
  """
  return dataclasses.field(metadata={"address": False, "former": True})


@dataclasses.dataclass(frozen=True)
class Source:
  """Where examples come from. Fields are JSON scalars, so that an experiment can carry its data.

  A field that only says where on this machine the data lie is a `place()`: it does not enter the content address of
  an experiment.
  """

  kind: ClassVar[str] = "image"  # or "video", "audio", "text", "array": see `latents.media`
  edition: ClassVar[int] = 1  # of the rule that makes the examples; another rule is another identity
  keys: ClassVar[tuple[str, ...]] = ("x",)  # what `batches` stacks, besides label and index

  @property
  def shape(self) -> tuple[int, ...]:
    """[*S,C] of one example after `augment`."""
    raise TypeError(f"{type(self).__name__} must say its shape")

  @property
  def rate(self) -> int | None:
    """Samples per second; None for pictures."""
    return None

  @property
  def names(self) -> tuple[str, ...]:
    """The label names, in the order of the labels; () when there are no labels."""
    return ()

  @property
  def classes(self) -> int:
    """The number of labels; 0 = no labels."""
    return len(self.names)

  @property
  def note(self) -> str:
    """What of its folder is used, what is not, and why there are no labels, in one line; '' without a folder."""
    return ""

  def records(self, split: Split) -> Records:
    """Opens a split. Raises UserError when there is nothing to read."""
    raise TypeError(f"{type(self).__name__} must open its records")

  def augment(self, example: Example, rng: np.random.Generator, train: bool) -> Example:
    """An example of `shape`: random when `train`, deterministic (no use of `rng`) when not."""
    return example

  def identity(self) -> str:
    """16 hex digits that tell contents apart, wherever they lie: the address of an experiment says how data are
    used, not what a folder or a data set holds.

    Equal for equal contents at another path and with other crops. Hashed are the class, its `edition` and
    `contents`: names and sizes of files, not their bytes, so an edit that keeps every size goes unnoticed.
    """
    hasher = hashlib.sha256(f"{type(self).__name__} {self.edition}".encode())
    for line in self.contents():
      hasher.update(b"\0" + line.encode("utf-8", "surrogateescape"))
    return hasher.hexdigest()[:16]

  def contents(self) -> Iterable[str]:
    """What makes the examples, a text each, in an order that no machine changes; costs one stat a file and
    the head of a PNG at most. Raises UserError where there is nothing to read. Without files: the fields."""
    fields = (f for f in dataclasses.fields(self) if f.metadata.get("address", True))
    return [f"{f.name}={getattr(self, f.name)!r}" for f in fields]


def sides(size: Size) -> tuple[int, int]:
  """(height, width). Raises UserError below 1."""
  found = (size, size) if isinstance(size, int) else size
  if min(found) < 1:
    raise UserError(f"size {size}: a side is at least 1 pixel")
  return found


class Arrays:
  """Records that lie in memory: every array [N,...] is one key of the examples."""

  def __init__(self, **arrays: np.ndarray):
    self.arrays = arrays
    self.skipped: tuple[str, ...] = ()

  def __len__(self) -> int:
    return len(next(iter(self.arrays.values())))

  def __getitem__(self, i: int) -> Example:
    return {key: array[i] for key, array in self.arrays.items()}


class Decoded:
  """Records made by a function of the index, for data that is read or drawn when it is asked for."""

  def __init__(self, count: int, make: Callable[[int], Example], skipped: Sequence[str] = ()):
    self.count, self.make = count, make
    self.skipped = tuple(skipped)

  def __len__(self) -> int:
    return self.count

  def __getitem__(self, i: int) -> Example:
    if not 0 <= i < self.count:
      raise IndexError(i)
    # A file can break (or turn out broken) after the folder was looked through. A long run should not end
    # for it, and which example stands in must not depend on the order of reading: it is the next good one.
    for k in range(self.count):
      try:
        example = self.make((i + k) % self.count)
        return {**example, STAND_IN: True} if k else example
      except Broken as error:
        warnings.warn(f"broken example replaced by the next one: {error}", stacklevel=2)
    raise Broken("no example of the data can be decoded")


def held_out(names: Sequence[str], fraction: float = 0.1) -> list[bool]:
  """Which of the names belong to the test split: by a hash of the name alone, so that files which are
  added later never move the others; at least one (the smallest hash), but never all."""
  if len(names) < 2:
    return [False] * len(names)
  order = [int.from_bytes(hashlib.sha256(name.encode("utf-8", "surrogateescape")).digest()[:8]) for name in names]
  chosen = [value < fraction * 2**64 for value in order]
  if not any(chosen):
    chosen[order.index(min(order))] = True
  if all(chosen):
    chosen[order.index(max(order))] = False
  return chosen


def sizes(root: str, names: Iterable[str]) -> Iterator[str]:
  """'name bytes' of files below a folder; -1 bytes for one that cannot be looked at."""
  for name in names:
    try:
      size = os.stat(os.path.join(root, name)).st_size
    except OSError:
      size = -1
    yield f"{name} {size}"


def warn_skipped(what: str, skipped: Sequence[str]) -> None:
  """One warning line that counts and names what was left out; nothing when all is well."""
  if skipped:
    warnings.warn(f"{what}: skipped {len(skipped)} files: {some(skipped)}", stacklevel=3)


def some(things: Sequence[str], between: str = "; ", shown: int = 5) -> str:
  """The first ones of a list in words, and how many more there are."""
  rest = f" and {len(things) - shown} more" if len(things) > shown else ""
  return between.join(things[:shown]) + rest
