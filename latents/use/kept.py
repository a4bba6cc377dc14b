"""What a run keeps of its signals for its report: arrays and pictures of reconstructions and samples."""

from pathlib import Path

import numpy as np

from latents import media
from latents.data import Source
from latents.machine import hosts
from latents.media.drawing import captioned, save_png


def save_signals(folder: Path, name: str, arrays: dict[str, np.ndarray], data: Source, caption: str = "") -> None:
  """NAME.npz (as `media` stores the kind; sound with its rate) and NAME.png, with a caption, by the first process."""
  if not hosts.first():
    return
  kind = media.kind(data.kind)
  signals = [k for k in arrays if k not in (*media.BESIDE, "pca")]
  stored = {k: kind.stored(v) if k in signals else v for k, v in arrays.items()} | kind.beside(data.rate)
  if data.names:
    stored["names"] = np.asarray(data.names)
  media.write_npz(folder / f"{name}.npz", stored)
  picture = kind.picture(stored, data.rate)
  save_png(captioned(picture, caption) if caption else picture, folder / f"{name}.png")
