"""The contract of a kind of signal."""

import abc
import os
from pathlib import Path
from typing import Any, ClassVar

import numpy as np

from latents.errors import UserError
from latents.media.drawing import grid, save_png

BESIDE = ("label", "rate", "names", "kind", "distance", "note")  # entries of an npz that are no signals


class Kind(abc.ABC):
  """What depends on the kind of a signal; the room's `__init__` has the contract of each method.

  name: what `Source.kind` says. dtype: of "x" in a batch of the loader. suffixes: of files that `write` makes, the
  first is the usual one. mirrored: whether the mirror image (along the axis before the channels) of an example is one
  too. distances: whether networks for pictures can look at it. on: what `judge` gives, in words.
  """

  name: ClassVar[str]
  dtype: ClassVar[str] = "float32"
  suffixes: ClassVar[tuple[str, ...]] = (".png", ".npz")
  mirrored: ClassVar[bool] = False
  distances: ClassVar[bool] = False
  on: ClassVar[str] = "values"

  def clip(self, x: np.ndarray) -> np.ndarray:
    """[B,*S,C] as decoded -> in the signal's range."""
    return np.clip(x, -1, 1)

  def stored(self, x: np.ndarray) -> np.ndarray:
    """[N,*S,C] float32 in the signal's range -> as an npz keeps it; what is stored already stays as it is."""
    return x

  def values(self, x: np.ndarray) -> np.ndarray:
    """[N,*S,C] as in a batch or an npz -> float64 [N,*S,C] in the units of training, for statistics."""
    return np.asarray(x, np.float64)

  def judge(self, x: np.ndarray, rate: int | None) -> np.ndarray:
    """[N,*S,C] in the signal's range -> [N,...], what a classifier and a distance are shown."""
    return x

  @abc.abstractmethod
  def tiles(self, x: np.ndarray, rate: int | None) -> np.ndarray:
    """[N,*S,C] stored -> uint8 [N,H,W,C'], C' in 1, 3, a picture of each."""

  def sheet(self, x: np.ndarray, rate: int | None) -> np.ndarray:
    """[N,*S,C] as in a batch -> uint8 [H,W,3], a picture of some examples for `latents data inspect`."""
    tiles = self.tiles(self.stored(x), rate)
    return grid(tiles, columns=self.columns(len(tiles), 8), scale=max(1, 128 // tiles.shape[1]))

  def columns(self, count: int, wished: int) -> int:
    """How many tiles stand side by side where `wished` pictures would."""
    return min(count, wished)

  def picture(self, arrays: dict[str, np.ndarray], rate: int | None) -> np.ndarray:
    """Stored signals by name -> one uint8 picture: a row a name (reconstructions), or a grid with a class a column."""
    signals = {k: v for k, v in arrays.items() if k not in BESIDE}
    shape = signals["x"].shape
    drawn = {k: self.tiles(v[:200], rate) if v.shape == shape else v for k, v in signals.items()}
    if len(drawn) == 1:
      x = drawn["x"]
      classes = int(arrays["label"].max()) + 1 if "label" in arrays else 10
      return grid(x[: 10 * classes if classes <= 20 else 200], columns=self.columns(len(x), min(classes, 20)))
    first = drawn["x"]
    rows = [v for k, v in drawn.items() if k != "pca" and v.shape == first.shape]
    return self.rows([row[:12] for row in rows])

  def rows(self, rows: list[np.ndarray]) -> np.ndarray:
    """Tiles [n,H,W,C] of originals and of every decoding -> one picture, those of an example below each other."""
    return grid(np.concatenate(rows), columns=len(rows[0]))

  def write(self, path: Path, x: np.ndarray, labels: np.ndarray | None, rate: int | None) -> None:
    """x [N,*S,C] in the signal's range -> a file; what it holds goes by the ending, one of `suffixes`."""
    stored = self.stored(x)
    if path.suffix == ".npz":
      write_npz(path, {"x": stored} | ({} if labels is None else {"label": labels}))
    else:
      tiles = self.tiles(stored, rate)
      save_png(grid(tiles, columns=self.columns(len(tiles), by_label(len(tiles), labels))), path)

  def check(self, path: Path) -> None:
    """UserError where `write` has no such file."""
    if path.suffix not in self.suffixes:
      raise UserError(f"--out {path}: the ending must be one of {', '.join(self.suffixes)}")

  def beside(self, rate: int | None) -> dict[str, Any]:
    """What an npz keeps beside the signals."""
    return {}


def write_npz(path: Path, arrays: dict[str, Any]) -> None:
  """Write a compressed npz whole or not at all."""
  temporary = path.with_name(path.name + ".tmp")
  with temporary.open("wb") as file:
    np.savez_compressed(file, allow_pickle=False, **arrays)
  os.replace(temporary, path)


def by_label(count: int, labels: np.ndarray | None) -> int:
  """Columns: one a class where the labels go round in turn, else as square as it gets."""
  if labels is not None and len(turn := np.unique(labels)) > 1 and count > len(turn):
    return min(len(turn), 20)
  return min(count, max(1, int(np.ceil(np.sqrt(count)))))


def eight_bit(x: np.ndarray) -> np.ndarray:
  """[..] float32 in [-1,1] -> uint8, as `types.to_uint8` to the bit and without JAX; uint8 stays."""
  if x.dtype == np.uint8:
    return x
  return np.floor(np.clip(np.float32(127.5) * np.asarray(x, np.float32) + np.float32(128.0), 0, 255)).astype(np.uint8)
