"""Text as windows of bytes: files of a folder, one file, or the reference that comes with Python."""

import dataclasses
import functools
import hashlib
import itertools
import os
from collections.abc import Iterable, Sequence

import numpy as np

from latents.data.audio import cut
from latents.data.listing import Listing, list_folder
from latents.data.source import Broken, Decoded, Example, Records, Source, Split, held_out, place, sizes, warn_skipped
from latents.errors import UserError

EXTENSIONS = (".txt", ".md", ".rst", ".tex", ".py", ".html", ".csv", ".json", ".jsonl", ".text")
BLOCK = 4096  # bytes of one file that go into the same split
PAD = 10  # the byte that fills up short texts: a line feed

Piece = tuple[str, int, int]  # (document, first byte, bytes)


@dataclasses.dataclass(frozen=True)
class Text(Source):
  """Bytes of text as "x" int32 [length] in 0..255: the files below the folder `path`, or the one file `path`.

  Whatever the encoding, bytes are kept as they are. Splits are of whole documents as in `Folder`; of one file, a tenth
  of its blocks of 4,096 bytes (fewer where it is small), by a hash of the block's number. No window crosses a document
  or block: it is anywhere in training, else the middle of at most two lengths. What is shorter is filled up with line
  feeds at its end; empty files are left out.
  """

  kind = "text"
  path: str = place()
  length: int = 64

  @property
  def shape(self) -> tuple[int, ...]:
    """[length]."""
    return (self.length,)

  @property
  def alone(self) -> bool:
    """Whether it is one file."""
    return os.path.isfile(self.path)

  @functools.cached_property
  def listing(self) -> Listing:
    """The files of both splits; read once."""
    return list_folder(self.path, EXTENSIONS, "text files").tell()

  @property
  def note(self) -> str:
    """As `Source.note`."""
    return "" if self.alone else self.listing.line()

  @property
  def names(self) -> tuple[str, ...]:
    """The label names."""
    return () if self.alone else self.listing.names

  def contents(self) -> Iterable[str]:
    """Every file of both splits with its size."""
    if self.alone:
      return [f"{os.path.getsize(self.path)}"]
    return sizes(self.path, self.listing.train + self.listing.test)

  def documents(self, split: Split) -> tuple[list[Piece], list[str]]:
    """What the windows of a split lie in, and the files that are left out, with the reason."""
    if self.alone:
      return blocks(self.path, self.length, split), []
    found, skipped = [], []
    for name in self.listing.files(split):
      path = os.path.join(self.path, name)
      size = os.path.getsize(path) if os.path.isfile(path) else 0
      if size:
        found.append((name, 0, size))
      else:
        skipped.append(f"{name} ({'empty' if os.path.isfile(path) else 'not a file'})")
    return found, skipped

  def records(self, split: Split) -> Records:
    """As `Source.records`."""
    found, skipped = self.documents(split)
    pieces = parts(found, self.length)
    if not pieces:
      raise UserError(f"no text for the {split} split in {self.path}{': ' + skipped[0] if skipped else ''}")
    warn_skipped(self.path, skipped)
    return Decoded(len(pieces), functools.partial(self.read, pieces), skipped)

  def read(self, pieces: list[Piece], i: int) -> Example:
    """Record i: "x" int32 [T] before the crop, and "label" where there are labels."""
    name, start, count = pieces[i]
    try:
      with open(self.path if self.alone else os.path.join(self.path, name), "rb") as file:
        file.seek(start)
        x = numbers(file.read(count))
    except OSError as error:
      raise Broken(f"{name} ({error.strerror})") from error
    if not len(x):
      raise Broken(f"{name} (shorter than it was)")
    label = None if self.alone else self.listing.label(name)
    return {"x": x} if label is None else {"x": x, "label": np.int32(label)}

  def augment(self, example: Example, rng: np.random.Generator, train: bool) -> Example:
    """Fills up or cuts to `length`."""
    return window(example, self.length, rng, train)


@dataclasses.dataclass(frozen=True)
class Topics(Source):
  """The language reference that every Python carries (`pydoc_data.topics`), as "x" int32 [length] of bytes.

  About 700 kB of English with code, in some 80 topics, of which about a tenth are held out. Another version of Python
  has another text and so another identity.
  """

  kind = "text"
  length: int = 64

  @property
  def shape(self) -> tuple[int, ...]:
    """[length]."""
    return (self.length,)

  def contents(self) -> Iterable[str]:
    """Every topic with a digest of its text."""
    return [f"{name} {hashlib.sha256(text).hexdigest()}" for name, text in topics().items()]

  def records(self, split: Split) -> Records:
    """As `Source.records`."""
    names = list(topics())
    kept = [n for n, test in zip(names, held_out(names), strict=True) if test == (split == "test")]
    pieces = parts([(name, 0, len(topics()[name])) for name in kept], self.length)

    def read(i: int) -> Example:
      name, start, count = pieces[i]
      return {"x": numbers(topics()[name][start : start + count])}

    return Decoded(len(pieces), read)

  def augment(self, example: Example, rng: np.random.Generator, train: bool) -> Example:
    """Fills up or cuts to `length`."""
    return window(example, self.length, rng, train)


@functools.cache
def topics() -> dict[str, bytes]:
  """The texts by name, in sorted order, none empty."""
  import pydoc_data.topics

  return {name: text.encode() for name, text in sorted(pydoc_data.topics.topics.items()) if text}


def blocks(path: str, length: int, split: Split) -> list[Piece]:
  """The blocks of one file that belong to a split: at least one length each but the last."""
  size = os.path.getsize(path)
  block = max(length, min(BLOCK, size // 10))
  edges = [*range(0, max(size, 1), block), size]
  if len(edges) > 2 and edges[-1] - edges[-2] < length:  # a short end belongs to the block before it
    del edges[-2]
  found = [(f"block {i}", a, b - a) for i, (a, b) in enumerate(itertools.pairwise(edges)) if b > a]
  test = held_out([name for name, _, _ in found])
  return [piece for piece, is_test in zip(found, test, strict=True) if is_test == (split == "test")]


def parts(documents: Sequence[Piece], length: int) -> list[Piece]:
  """Documents -> records: whole ones of at most four lengths, else equal parts of at most two."""
  return [(name, start + a, n) for name, start, count in documents for a, n in cut(count, 1, length, 1)]


def numbers(text: bytes) -> np.ndarray:
  """Bytes -> int32 [T]."""
  return np.frombuffer(text, np.uint8).astype(np.int32)


def window(example: Example, length: int, rng: np.random.Generator, train: bool) -> Example:
  """Cuts "x" [T] to `length`: anywhere when `train`, else the middle; short ones are filled up."""
  x = example["x"]
  spare = len(x) - length
  if spare < 0:
    return {**example, "x": np.pad(x, (0, -spare), constant_values=PAD)}
  start = int(rng.integers(spare + 1)) if train and spare else spare // 2
  return {**example, "x": x[start : start + length]}
