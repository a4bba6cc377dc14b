"""What a run keeps of its signals for its report: arrays and pictures of reconstructions and samples."""

import os
from pathlib import Path

import numpy as np

from latents.data import Source
from latents.data.pictures import grid, save_png, spectrogram
from latents.machine import hosts
from latents.types import to_uint8


def save_signals(folder: Path, name: str, arrays: dict[str, np.ndarray], data: Source) -> None:
  """NAME.npz (images as uint8, audio as float32 with its rate) and NAME.png, by the first process."""
  if not hosts.first():
    return
  image = data.kind == "image"
  stored = {k: np.asarray(to_uint8(v)) if image and v.dtype == np.float32 else v for k, v in arrays.items()}
  if not image:
    stored["rate"] = np.asarray(data.rate)
  if data.names:
    stored["names"] = np.asarray(data.names)
  write_npz(folder / f"{name}.npz", stored)
  save_png(picture(stored, data.rate), folder / f"{name}.png")


def as_kept(x: np.ndarray, data: Source) -> np.ndarray:
  """[N,*S,C] in [-1,1] -> what files hold of it, and what is therefore measured: images as uint8."""
  return np.asarray(to_uint8(x)) if data.kind == "image" else x


def write_npz(path: Path, arrays: dict[str, np.ndarray]) -> None:
  """Write a compressed npz whole or not at all."""
  temporary = path.with_name(path.name + ".tmp")
  with temporary.open("wb") as file:
    np.savez_compressed(file, allow_pickle=False, **arrays)
  os.replace(temporary, path)


def picture(arrays: dict[str, np.ndarray], rate: int | None) -> np.ndarray:
  """Signals by name -> one uint8 picture: a row a name (reconstructions), or a grid with a class a column."""
  signals = {k: v for k, v in arrays.items() if k not in ("label", "rate", "names")}
  if rate is not None:
    signals = {k: np.stack([spectrogram(w[:, 0], rate) for w in v[:16]]) for k, v in signals.items() if v.ndim == 3}
  if len(signals) == 1:
    x = signals["x"]
    classes = int(arrays["label"].max()) + 1 if "label" in arrays else 10
    return grid(x[: 10 * classes if classes <= 20 else 200], columns=min(classes, 20, len(x)))
  first = signals["x"]
  rows = [v for k, v in signals.items() if k != "pca" and v.shape == first.shape]
  count = min(12, len(first))
  return grid(np.concatenate([r[:count] for r in rows]), columns=count)
