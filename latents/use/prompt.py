"""What samples begin with: the codes of a user's own files."""

import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from latents.data import Audio, Source, load_image
from latents.data.audio import Files, loudness
from latents.data.source import Broken
from latents.data.text import PAD
from latents.errors import UserError
from latents.use.files import WAYS
from latents.use.given import OPEN, real


def of_files(model: Any, paths: Sequence[Path], keep: float, batch: int = 64) -> np.ndarray:
  """The first share `keep` of the codes of files (pictures, clips, texts, sounds) [P,N], as the model encodes them;
  OPEN behind them. Pictures cover the model's size and are cropped; of a short sound or text it is a share of its own
  length. batch: files that are encoded at a time. UserError."""
  if not 0 < real(keep, "--keep") < 1:
    raise UserError(f"--keep {keep}: of a prompt a share is kept, above 0 and below 1")
  if not paths:
    raise UserError("a prompt needs a file")
  stage = model.experiment.stage2
  if not stage.prior.prompts:
    raise UserError(f"a prompt is of codes, but {type(stage.prior).__name__} draws vectors")
  out = []
  for first in range(0, len(paths), batch):
    x, shares = zip(*[_signal(path, stage.data) for path in paths[first : first + batch]], strict=True)
    codes = np.asarray(model.encode(np.stack(x)).codes)
    codes = codes.reshape(len(codes), -1)
    for row, share in zip(codes, shares, strict=True):
      places = len(row) // stage.prior.together
      kept = min(max(round(keep * share * places), 1), places - 1) * stage.prior.together
      out.append(np.where(np.arange(len(row)) < kept, row, OPEN))
  return np.stack(out)


def _signal(path: Path, source: Source) -> tuple[np.ndarray, float]:
  """A file -> [*S,C] of the source's shape, and the share of it that the file fills."""
  shape = source.shape
  if source.kind == "image":
    return load_image(path, shape[:2], shape[-1]), 1.0
  if isinstance(source, Audio):
    x = _sound(path, source)
  elif source.kind in WAYS:
    x = WAYS[source.kind][0](path, source)
  else:
    raise UserError(f"this run models {source.kind}: prompts are pictures, clips, texts or sounds")
  if source.kind == "video":
    return x, 1.0
  share, x = min(len(x) / shape[0], 1.0), x[: shape[0]]
  pad = PAD if source.kind == "text" else 0
  return np.pad(x, ((0, shape[0] - len(x)), *[(0, 0)] * (x.ndim - 1)), constant_values=pad), share


def _sound(path: Path, source: Audio) -> np.ndarray:
  """The beginning of a recording [T,1] in [-1,1], as long as an example at the most, at the rate of the source."""
  if not path.is_file():
    raise UserError(f"{path}: " + ("a folder, not a recording" if path.is_dir() else "no such file"))
  files = Files(os.path.dirname(os.path.abspath(path)))
  try:
    frames, own = files.info(path.name)
    wave = files.read(path.name, 0, min(frames, -(-source.length * own // source.rate)), source.rate)
  except Broken as error:
    raise UserError(f"{path}: {error}") from None
  return np.clip(loudness(wave, source.normalize), -1, 1)[:, None]
