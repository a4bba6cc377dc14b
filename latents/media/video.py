"""Clips [T,H,W,C], uint8 or float in [-1,1]."""

import io
from pathlib import Path
from typing import Any, ClassVar

import numpy as np

from latents.media.base import Kind, eight_bit
from latents.media.drawing import grid
from latents.media.mark import MARK

FRAMES = 8  # of a clip that a picture shows
MILLISECONDS = 100  # a frame of an animation lasts


class Video(Kind):
  """C is 1 or 3. A clip is drawn as a strip of at most `FRAMES` frames, spread evenly, time to the right."""

  name: ClassVar[str] = "video"
  dtype: ClassVar[str] = "uint8"
  suffixes: ClassVar[tuple[str, ...]] = (".gif", ".webp", ".png", ".npz")
  mirrored: ClassVar[bool] = True
  on: ClassVar[str] = "pixels"

  def stored(self, x: np.ndarray) -> np.ndarray:
    """uint8."""
    return eight_bit(x)

  def values(self, x: np.ndarray) -> np.ndarray:
    """In [-1,1]."""
    return x / 127.5 - 1.0 if x.dtype == np.uint8 else np.asarray(x, np.float64)

  def tiles(self, x: np.ndarray, rate: int | None) -> np.ndarray:
    """[N,T,H,W,C] -> strips [N,H,n W,C]."""
    chosen = np.linspace(0, x.shape[1] - 1, min(FRAMES, x.shape[1])).round().astype(int)
    return np.concatenate([eight_bit(x)[:, t] for t in chosen], 2)

  def columns(self, count: int, wished: int) -> int:
    """Strips are wide: two beside each other at most."""
    return min(count, 2)

  def rows(self, rows: list[np.ndarray]) -> np.ndarray:
    """A column of originals and one of each decoding."""
    return grid(np.stack(rows, 1).reshape(-1, *rows[0].shape[1:]), columns=len(rows))

  def write(self, path: Path, x: np.ndarray, labels: np.ndarray | None, rate: int | None) -> None:
    """Animations show all clips at once, in a square."""
    if path.suffix not in (".gif", ".webp"):
      return super().write(path, x, labels, rate)
    columns = max(1, int(np.ceil(np.sqrt(len(x)))))
    stored = self.stored(x)
    sheets = np.stack([grid(stored[:, t], columns=columns) for t in range(x.shape[1])])
    path.write_bytes(animation(sheets, path.suffix[1:].upper(), comment=MARK))
    return None


def animation(frames: np.ndarray, form: str = "WEBP", quality: int = 80, comment: str = "") -> bytes:
  """uint8 [T,H,W,1 or 3] -> an animated GIF or WebP that repeats without end."""
  from PIL import Image

  images = [Image.fromarray(f[..., 0] if f.shape[-1] == 1 else f) for f in frames]
  file = io.BytesIO()
  about: dict[str, Any] = {"quality": quality, "method": 4} if form == "WEBP" else {"disposal": 2}
  if comment and form == "WEBP":
    about["exif"] = Image.Exif()
    about["exif"][0x010E] = comment  # ImageDescription
  elif comment:
    about["comment"] = comment
  images = [i.convert("RGB") for i in images]
  images[0].save(
    file, format=form, save_all=True, append_images=images[1:], duration=MILLISECONDS, loop=0, **about
  )  # fmt: skip
  return file.getvalue()
