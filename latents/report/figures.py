"""Arrays -> what a page can hold by itself: sprite PNGs, WAV files, waveforms as SVG."""

import base64
import dataclasses
import io
import math
import wave
from collections.abc import Sequence

import numpy as np
from PIL import Image


@dataclasses.dataclass(frozen=True)
class Sheet:
  """Images of one size packed in one PNG, each in a cell with an edge of one repeated pixel.

  The edge keeps neighbours out of a cell when a browser scales it by a fraction.
  """

  png: bytes
  count: int
  columns: int
  height: int
  width: int

  @property
  def rows(self) -> int:
    """Rows of the sprite."""
    return -(-self.count // self.columns)

  def rule(self) -> str:
    """The CSS declarations of an element that shows one image; --x and --y say which."""
    across = 100 * self.columns * (self.width + 2) / self.width
    down = 100 * self.rows * (self.height + 2) / self.height
    return (
      f"background-image:url({data_uri(self.png, 'image/png')});background-size:{across:.4f}% {down:.4f}%;"
      f"image-rendering:{'pixelated' if max(self.height, self.width) <= 96 else 'auto'}"
    )

  def place(self, i: int) -> str:
    """The CSS variables that choose image i."""
    row, column = divmod(i, self.columns)
    return f"--x:{_percent(column, self.columns, self.width)};--y:{_percent(row, self.rows, self.height)}"


def _percent(index: int, cells: int, size: int) -> str:
  """A background position p% lines up p% of the sheet with p% of the element."""
  return f"{100 * (index * (size + 2) + 1) / (cells * (size + 2) - size):.4f}%"


def sheet(images: np.ndarray) -> Sheet:
  """uint8 [N,H,W,3], N > 0 -> Sheet; greys are stored as such."""
  n, height, width, _ = images.shape
  columns = math.ceil(math.sqrt(n))
  rows = -(-n // columns)
  page = np.zeros((rows, columns, height + 2, width + 2, 3), np.uint8)
  page.reshape(rows * columns, height + 2, width + 2, 3)[:n] = np.pad(
    images, ((0, 0), (1, 1), (1, 1), (0, 0)), mode="edge"
  )
  page = page.transpose(0, 2, 1, 3, 4).reshape(rows * (height + 2), columns * (width + 2), 3)
  return Sheet(png(page), n, columns, height, width)


def png(image: np.ndarray, colours: int | None = None) -> bytes:
  """uint8 [H,W,3] -> PNG; with at most `colours` colours if given."""
  grey = (image[..., :1] == image).all()
  picture = Image.fromarray(np.ascontiguousarray(image[..., 0] if grey else image))
  if colours is not None and not grey:
    picture = picture.quantize(colours, dither=Image.Dither.NONE)
  file = io.BytesIO()
  picture.save(file, format="PNG", optimize=True)
  return file.getvalue()


def data_uri(content: bytes, kind: str) -> str:
  """Bytes -> data:<kind>;base64,..."""
  return f"data:{kind};base64,{base64.b64encode(content).decode()}"


def pictures(x: np.ndarray) -> np.ndarray:
  """Signals [N,*S,C] (uint8, or float in [-1,1]) -> uint8 [N,H,W,3]; of a video, four frames side by side."""
  if x.ndim == 5:
    frames = np.linspace(0, x.shape[1] - 1, min(4, x.shape[1])).round().astype(int)
    x = np.concatenate([x[:, t] for t in frames], axis=2)
  if x.dtype.kind == "f":
    x = np.nan_to_num(x.astype(np.float32), nan=0.0, posinf=1.0, neginf=-1.0)
    x = (np.clip(x, -1, 1) * 127.5 + 127.5).round()
  x = np.clip(x, 0, 255).astype(np.uint8)
  return np.repeat(x[..., :1], 3, -1) if x.shape[-1] < 3 else x[..., :3]


def shrink(images: np.ndarray, side: int) -> np.ndarray:
  """uint8 [N,H,W,3] with the longer side at most `side`."""
  height, width = images.shape[1:3]
  if max(height, width) <= side:
    return images
  ratio = side / max(height, width)
  size = (max(1, round(width * ratio)), max(1, round(height * ratio)))
  return np.stack([np.asarray(Image.fromarray(i).resize(size, Image.Resampling.LANCZOS)) for i in images])


def pack(
  arrays: Sequence[np.ndarray], budget: int, sides: Sequence[int], counts: Sequence[int]
) -> tuple[list[Sheet], int]:
  """Sheets of the first images of every array, as large and as many as `budget` bytes of PNG allow.

  Size is kept before number: texture is what a flip shows. Returns the sheets and the side that was kept.
  """
  for side in sides:
    trial = [shrink(a[:4], side) for a in arrays]
    each = sum(len(sheet(t).png) for t in trial) / max(1, len(trial[0]))
    for count in counts:
      if min(count, len(arrays[0])) * each <= budget:
        return [sheet(shrink(a[:count], side)) for a in arrays], side
  return [sheet(shrink(a[: counts[-1]], sides[-1])) for a in arrays], sides[-1]


def wav(x: np.ndarray, rate: int) -> bytes:
  """float [T] in [-1,1] -> 16-bit PCM, one channel."""
  file = io.BytesIO()
  with wave.open(file, "wb") as out:
    out.setnchannels(1)
    out.setsampwidth(2)
    out.setframerate(rate)
    out.writeframes((np.clip(x, -1, 1) * 32767).round().astype("<i2").tobytes())
  return file.getvalue()


def waves(x: np.ndarray) -> np.ndarray:
  """Stored audio [N,T,C] (uint8, int16 or float) -> float32 [N,T] in [-1,1], the mean of its channels."""
  if x.dtype.kind == "f":
    y = np.nan_to_num(x.astype(np.float32), nan=0.0, posinf=1.0, neginf=-1.0)
  elif x.dtype == np.uint8:
    y = x.astype(np.float32) / 127.5 - 1
  else:
    y = x.astype(np.float32) / 32768
  return np.clip(y.mean(-1), -1, 1)


def waveform(x: np.ndarray, columns: int = 180) -> str:
  """float [T] -> SVG of the range of the samples under every column, in the page's own colours."""
  bins = np.array_split(np.resize(x, max(len(x), columns)), columns)
  top = " ".join(f"L{i} {24 - 23 * float(b.max()):.1f}" for i, b in enumerate(bins))
  bottom = " ".join(f"L{i} {24.6 - 23 * float(b.min()):.1f}" for i, b in reversed(list(enumerate(bins))))
  return (
    f'<svg class="wave" viewBox="0 0 {columns - 1} 48" preserveAspectRatio="none" aria-hidden="true">'
    f'<path d="M{top[1:]} {bottom}Z"/></svg>'
  )
