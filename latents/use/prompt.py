"""What samples begin with: the codes of a user's own files."""

import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from latents.data import Audio
from latents.data.audio import Files, loudness
from latents.data.source import Broken
from latents.errors import UserError
from latents.use.files import WAYS, fit


def of_files(model: Any, paths: Sequence[Path], keep: float) -> np.ndarray:
  """The first share `keep` of the codes of files (pictures, clips, texts, sounds) [P,n], as the model encodes them."""
  if not 0 < keep < 1:
    raise UserError(f"--keep {keep}: of a prompt a share is kept, above 0 and below 1")
  x = np.stack([_signal(model, path) for path in paths])
  codes = model.encode(x).codes
  if codes is None:
    raise UserError("a prompt is of codes, and this model's latents are vectors")
  codes = codes.reshape(len(codes), -1)
  return codes[:, : max(round(keep * codes.shape[1]), 1)]


def _signal(model: Any, path: Path) -> np.ndarray:
  """A file -> [*S,C], of the model's own shape."""
  source = model.experiment.stage1.data
  if isinstance(source, Audio):
    x = _sound(path, source)
  elif source.kind in WAYS:
    x = WAYS[source.kind][0](path, source)
  else:
    raise UserError(f"this run models {source.kind}: prompts are pictures, clips, texts or sounds")
  if source.kind == "image":
    x = fit(model, x, own=True)
  elif source.kind in ("audio", "text"):
    x = np.pad(x[: model.shape[0]], ((0, max(model.shape[0] - len(x), 0)), *[(0, 0)] * (x.ndim - 1)))
  return x


def _sound(path: Path, source: Audio) -> np.ndarray:
  """[T,1] in [-1,1] at the rate of the source."""
  if not path.is_file():
    raise UserError(f"{path}: no such file")
  files = Files(os.path.dirname(os.path.abspath(path)))
  try:
    frames, _ = files.info(path.name)
    wave = files.read(path.name, 0, frames, source.rate)
  except Broken as error:
    raise UserError(f"{path}: {error}") from None
  return np.clip(loudness(wave, source.normalize), -1, 1)[:, None]
