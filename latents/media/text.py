"""Text as bytes: int32 [T] in 0..255, without a channel."""

from pathlib import Path
from typing import ClassVar

import numpy as np

from latents.media.base import Kind
from latents.media.drawing import grid
from latents.media.mark import TEXT

VALUES = 256
LINES, WIDTH = 24, 100  # of a picture


class Text(Kind):
  """A picture of it is set in PIL's own letters; files hold the bytes as they are."""

  name: ClassVar[str] = "text"
  dtype: ClassVar[str] = "int32"
  suffixes: ClassVar[tuple[str, ...]] = (".txt", ".npz", ".png")
  on: ClassVar[str] = "frequencies of bytes"

  def clip(self, x: np.ndarray) -> np.ndarray:
    """Into 0..255."""
    return np.clip(x, 0, VALUES - 1).astype(np.int32)

  def stored(self, x: np.ndarray) -> np.ndarray:
    """int32 [N,T]."""
    return self.clip(x)

  def values(self, x: np.ndarray) -> np.ndarray:
    """[N,T] -> [N,T,1], the numbers of the bytes."""
    return np.asarray(x, np.float64)[..., None]

  def judge(self, x: np.ndarray, rate: int | None) -> np.ndarray:
    """[N,T] -> [N,256], how often each byte stands there."""
    return np.stack([np.bincount(row.astype(np.int64), minlength=VALUES) / len(row) for row in x])

  def tiles(self, x: np.ndarray, rate: int | None) -> np.ndarray:
    """One picture a text, its lines of `WIDTH` characters below each other."""
    from PIL import Image, ImageDraw, ImageFont

    font = ImageFont.load_default_imagefont()  # all letters are 6 pixels wide
    width, rows = min(WIDTH, x.shape[1]), -(-x.shape[1] // WIDTH)
    out = []
    for row in x[:LINES]:
      line = printed(row)
      image = Image.new("L", (6 * width + 8, 14 * rows + 4), 255)
      for i in range(rows):
        for j, letter in enumerate(line[i * width : (i + 1) * width]):
          ImageDraw.Draw(image).text((4 + 6 * j, 1 + 14 * i), letter, font=font, fill=0)
      out.append(np.asarray(image)[..., None])
    return np.stack(out)

  def columns(self, count: int, wished: int) -> int:
    """Below each other."""
    return 1

  def sheet(self, x: np.ndarray, rate: int | None) -> np.ndarray:
    """Below each other, not enlarged."""
    return grid(self.tiles(x, rate), columns=1, scale=1)

  def rows(self, rows: list[np.ndarray]) -> np.ndarray:
    """Every original above its reconstructions."""
    return grid(np.stack(rows, 1).reshape(-1, *rows[0].shape[1:]), columns=1, scale=1)

  def write(self, path: Path, x: np.ndarray, labels: np.ndarray | None, rate: int | None) -> None:
    """In a .txt one text after the other, each with a line feed; its own are kept. The last line is our mark."""
    if path.suffix != ".txt":
      return super().write(path, x, labels, rate)
    path.write_bytes(b"".join(row.astype(np.uint8).tobytes() + b"\n" for row in self.stored(x)) + TEXT.encode())
    return None


def printed(row: np.ndarray) -> str:
  """Bytes [T] -> as many characters that all print: ASCII as it is, a return sign for a line feed, else a dot."""
  return "".join(chr(b) if 32 <= b < 127 else "\N{PILCROW SIGN}" if b == 10 else "\N{MIDDLE DOT}" for b in row.tolist())
