"""Signals in and out of files: samples as PNG, NPZ or FLAC, and reconstructions of a user's own pictures."""

from collections.abc import Iterator
from pathlib import Path

import numpy as np

from latents.data import Source
from latents.data.pictures import grid, load_image, save_png, spectrogram
from latents.errors import UserError
from latents.machine.disk import disk_errors
from latents.types import to_uint8
from latents.use.kept import write_npz
from latents.use.model import Model

SUFFIXES = {"image": (".png", ".npz"), "audio": (".flac", ".wav", ".npz", ".png")}


def check_out(path: Path, kind: str | None = None) -> None:
  """The file can be written and its ending is one we write (for signals of `kind`, if known)."""
  known = SUFFIXES[kind] if kind else sorted({s for part in SUFFIXES.values() for s in part})
  if path.suffix not in known:
    raise UserError(f"--out {path}: the ending must be one of {', '.join(known)}")
  if not path.absolute().parent.is_dir():
    raise UserError(f"--out {path}: the folder {path.absolute().parent} does not exist")


def write_signals(path: Path, x: np.ndarray, labels: np.ndarray | None, source: Source) -> None:
  """x [N,*S,C] in [-1,1] -> a picture (grid; spectrograms of sound), arrays, or sound end to end."""
  check_out(path, source.kind)
  rate = source.rate or 0  # pictures have none
  with disk_errors(path.absolute().parent):
    if path.suffix == ".npz":
      arrays = {"x": np.asarray(to_uint8(x)) if source.kind == "image" else x}
      write_npz(path, arrays | ({} if labels is None else {"label": labels}))
    elif path.suffix == ".png":
      sound = source.kind == "audio"
      pictures = np.stack([spectrogram(w[:, 0], rate) for w in x]) if sound else np.asarray(to_uint8(x))
      save_png(grid(pictures, columns=_columns(len(pictures), labels)), path)
    else:
      import soundfile  # loads a C library

      soundfile.write(path, x.reshape(-1, x.shape[-1]), rate)


def _columns(count: int, labels: np.ndarray | None) -> int:
  """A column a class where the labels go round in turn, else as square as it gets."""
  if labels is not None and len(turn := np.unique(labels)) > 1 and count > len(turn):
    return min(len(turn), 20)
  return min(count, max(1, int(np.ceil(np.sqrt(count)))))


def reconstruct(model: Model, paths: list[Path], out: Path, steps: int | None) -> Iterator[str]:
  """Write OUT/NAME.png, the original beside its reconstruction, of every picture; a line for each.

  Pictures keep their size where the model takes any grid (cut to a multiple of its stride by the
  centre); else they are brought to the model's. Nothing is written unless all can be read.
  """
  source = model.experiment.stage1.data
  if source.kind != "image":
    raise UserError(f"this run models {source.kind}, not pictures")
  names = [f"{p.stem}.png" for p in paths]
  if len(set(names)) < len(names):
    raise UserError("two of the pictures would be written to the same file: give them different names")
  for name in names:
    if (out / name).exists():
      raise UserError(f"{out / name} exists already: nothing was overwritten")
  originals = [load_image(p, channels=source.shape[-1]) for p in paths]
  if out.exists() and not out.is_dir():
    raise UserError(f"--out {out} is not a folder")
  with disk_errors(out.absolute().parent):
    out.mkdir(parents=True, exist_ok=True)
  for path, name, x in zip(paths, names, originals, strict=True):
    x = fit(model, x)
    x_hat = model.reconstruct(x[None], steps=steps)[0]
    error = np.mean((np.clip(x_hat, -1, 1) - x) ** 2) / 4  # of signals in [0,1]
    pair = np.asarray(to_uint8(np.stack([x, x_hat])))
    with disk_errors(out):
      save_png(grid(pair, columns=2, scale=1), out / name)
    yield f"{out / name}: {path.name} {x.shape[1]}x{x.shape[0]}, PSNR {-10 * np.log10(max(error, 1e-10)):.2f} dB"


def fit(model: Model, x: np.ndarray) -> np.ndarray:
  """[H,W,C] -> a size the model takes: cut to its stride if it takes any grid, else resized to its data's."""
  from PIL import Image  # only here

  height, width, _ = model.experiment.stage1.data.shape
  stride = getattr(model.experiment.stage1.model.encoder, "stride", None)
  if stride:
    h, w = (n - n % stride for n in x.shape[:2])
    if not h or not w:
      raise UserError(f"a picture of {x.shape[1]}x{x.shape[0]} is smaller than the model's stride {stride}")
    top, left = (x.shape[0] - h) // 2, (x.shape[1] - w) // 2
    return x[top : top + h, left : left + w]
  planes = [Image.fromarray(x[..., c]).resize((width, height), Image.Resampling.BICUBIC) for c in range(x.shape[-1])]
  return np.clip(np.stack([np.asarray(p) for p in planes], -1), -1, 1)
