"""Signals in and out of files: samples as a picture, arrays, sound, animation or text, and a user's own files."""

import contextlib
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np

from latents import media
from latents.data import Source, clips, load_image
from latents.data.source import Broken
from latents.data.text import PAD, numbers
from latents.errors import UserError
from latents.machine.disk import check_file, check_folder, disk_errors
from latents.media.drawing import grid, save_png
from latents.media.mark import MARK
from latents.media.video import animation
from latents.types import to_signal, to_uint8
from latents.use.model import Model
from latents.use.sample import Sampler
from latents.use.tiled import Tiled


def check_out(path: Path, kind: str | None = None, overwrite: bool = False) -> None:
  """The file can be written, its ending is one we write (for signals of `kind`, if known), and nothing is there yet."""
  known = media.kind(kind).suffixes if kind else sorted({s for k in media.KINDS.values() for s in k.suffixes})
  check_file(path, known, overwrite)
  if not path.absolute().parent.is_dir():
    raise UserError(f"--out {path}: the folder {path.absolute().parent} does not exist")


def write_signals(path: Path, x: np.ndarray, labels: np.ndarray | None, source: Source) -> None:
  """x [N,*S,C] in the signal's range -> a file of the kind that the ending says."""
  with disk_errors(path.absolute().parent):
    media.kind(source.kind).write(path, x, labels, source.rate)


def draw(
  model: Model, sampler: Sampler, labels: np.ndarray, seed: int, guidance: float | None, tile: int | None,
  prompt: np.ndarray | None = None,
) -> tuple[np.ndarray, str]:  # fmt: skip
  """int32 labels [N] -> samples [N,*S,C] in [-1,1], and what is to be said of them. tile: they are decoded in tiles.
  prompt: see `Sampler.prompt`."""
  if tile is None:
    return sampler.signals(labels, seed=seed, guidance=guidance, shown=True, prompt=prompt), _mended(sampler)
  tiled = model.tiled(tile)
  x = tiled.signals(sampler, labels, seed, guidance)
  return x, ((note := tiled.note()) and f"; {note}") + _mended(sampler)


def _mended(sampler: Sampler) -> str:
  """What is to be said of merged tokens that did not fill the grid exactly."""
  codes, cut, filled = (sampler.mended[name] for name in ("codes", "cut", "filled"))
  return f"; of {codes} codes {cut} were cut and {filled} filled" if cut or filled else ""


def reconstruct(
  model: Model, paths: list[Path], out: Path, steps: int | None, tile: int | None = None
) -> Iterator[str]:
  """Write OUT/NAME.png, .webp or .txt for every picture, clip or text file; a line for each.

  Pictures: the original beside its reconstruction; they keep their size where the model takes any grid (cut to a
  multiple of its stride by the centre), else they are brought to the model's. Clips: likewise, in the model's number of
  frames from the start. Texts: the reconstruction alone, as long as the original, window after window. Nothing is
  written unless all can be read. tile: pictures are seen in tiles of that side (`Model.tiled`).
  """
  source = model.experiment.stage1.data
  if source.kind not in WAYS:
    raise UserError(f"this run models {source.kind}, not pictures, clips or text")
  read, suffix, write = WAYS[source.kind]
  names = [f"{p.stem}{suffix}" for p in paths]
  if len(set(names)) < len(names):
    raise UserError("two of the files would be written to the same file: give them different names")
  check_folder(out)
  for name in names:
    if (out / name).exists():
      raise UserError(f"{out / name} exists already: nothing was overwritten")
  originals = [read(p, source) for p in paths]
  shown = model if tile is None else model.tiled(tile)
  for path, name, x in zip(paths, names, originals, strict=True):
    yield f"{out / name}: {path.name} {write(shown, x, out / name, steps)}"


def _read_picture(path: Path, source: Source) -> np.ndarray:
  return load_image(path, channels=source.shape[-1])


def _read_clip(path: Path, source: Source) -> np.ndarray:
  """[T,H,W,C] in [-1,1], the short side the model's."""
  frames, height, width, channels = source.shape
  stride = getattr(source, "stride", 1)
  try:
    x = clips.read_animation(str(path), channels, min(height, width), 0, clips.span(frames, stride))
  except Broken as error:
    raise UserError(f"{path}: {error if path.exists() else 'no such file'}") from error
  chosen = {"x": x}
  x = clips.window(chosen, frames, stride, np.random.default_rng(0), False)["x"]
  top, left = (x.shape[1] - height) // 2, (x.shape[2] - width) // 2
  return np.asarray(to_signal(np.ascontiguousarray(x[:, top : top + height, left : left + width])))


def _read_text(path: Path, source: Source) -> np.ndarray:
  """int32 [T]."""
  try:
    text = numbers(path.read_bytes())
  except OSError as error:
    raise UserError(f"{path}: {error.strerror}") from error
  if not len(text):
    raise UserError(f"{path} is empty")
  return text


@contextlib.contextmanager
def _room(out: Path) -> Iterator[None]:
  """The folder of a file is there as soon as there is something to write."""
  with disk_errors(out.absolute().parent):
    out.parent.mkdir(parents=True, exist_ok=True)
    yield


def _picture(model: Model | Tiled, x: np.ndarray, out: Path, steps: int | None) -> str:
  x = fit(model if isinstance(model, Model) else model.model, x)
  x_hat = model.reconstruct(x[None], steps=steps)[0]
  pair = np.asarray(to_uint8(np.stack([x, x_hat])))
  with _room(out):
    save_png(grid(pair, columns=2, scale=1), out)
  note = "" if isinstance(model, Model) else model.note()
  return f"{x.shape[1]}x{x.shape[0]}, PSNR {_psnr(x, x_hat):.2f} dB{note and f'; {note}'}"


def _clip(model: Model, x: np.ndarray, out: Path, steps: int | None) -> str:
  x_hat = model.reconstruct(x[None], steps=steps)[0]
  pair = np.asarray(to_uint8(np.concatenate([x, x_hat], 2)))
  with _room(out):
    out.write_bytes(animation(pair, comment=MARK))
  return f"{x.shape[0]} frames of {x.shape[2]}x{x.shape[1]}, PSNR {_psnr(x, x_hat):.2f} dB"


def _text(model: Model, x: np.ndarray, out: Path, steps: int | None, batch: int = 64) -> str:
  length = model.experiment.stage1.data.shape[0]
  rows = np.pad(x, (0, -len(x) % length), constant_values=PAD).reshape(-1, length)
  made = []
  for first in range(0, len(rows), batch):  # every call has the same shape
    part = rows[first : first + batch]
    full = np.pad(part, ((0, batch - len(part)), (0, 0)), constant_values=PAD)
    made.append(model.reconstruct(full, steps=steps)[: len(part)])
  x_hat = np.concatenate(made).reshape(-1)[: len(x)]
  with _room(out):
    out.write_bytes(x_hat.astype(np.uint8).tobytes())
  return f"{len(x)} bytes, {100 * np.mean(x == x_hat):.2f} % right"


def _psnr(x: np.ndarray, x_hat: np.ndarray) -> float:
  error = np.mean((np.clip(x_hat, -1, 1) - x) ** 2) / 4  # of signals in [0,1]
  return -10 * np.log10(max(error, 1e-10))


# kind -> how a file is read, the ending of what is written, and how that is made
WAYS: dict[str, tuple[Callable[[Path, Source], np.ndarray], str, Callable[..., str]]] = {
  "image": (_read_picture, ".png", _picture),
  "video": (_read_clip, ".webp", _clip),
  "text": (_read_text, ".txt", _text),
}


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
