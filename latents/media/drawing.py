"""Drawing for people: grids, spectrograms, waves, and PNG files."""

import os
import tempfile
import textwrap

import numpy as np
from PIL import Image, ImageDraw, ImageFont
from PIL.PngImagePlugin import PngInfo

from latents.errors import UserError
from latents.media.mark import MARK


def grid(images: np.ndarray, columns: int = 8, pad: int = 2, scale: int | None = None) -> np.ndarray:
  """uint8 [N,H,W,C] (C = 1, 3 or 4; only the first three are shown) -> uint8 [H',W',3], row by row on white.

  `pad` pixels lie between pictures and around them; `scale` repeats every pixel that often, by itself as
  often as pictures of 16 px and less need to be some 32 large.
  """
  images = np.asarray(images)
  if images.dtype != np.uint8 or images.ndim != 4 or not len(images):
    raise ValueError(f"grid needs uint8 [N,H,W,C] with N > 0, got {images.dtype} {images.shape}")
  images = np.repeat(images, 3, -1) if images.shape[-1] < 3 else images[..., :3]
  if images.shape[-1] != 3:
    raise ValueError(f"grid needs 1, 3 or 4 channels, got {images.shape}")
  scale = max(1, 32 // max(*images.shape[1:3], 1)) if scale is None else scale
  images = images.repeat(scale, 1).repeat(scale, 2)
  n, height, width, _ = images.shape
  columns = max(1, min(columns, n))
  rows = -(-n // columns)
  sheet = np.full((rows * (height + pad) + pad, columns * (width + pad) + pad, 3), 255, np.uint8)
  for i, image in enumerate(images):
    top, left = pad + (i // columns) * (height + pad), pad + (i % columns) * (width + pad)
    sheet[top : top + height, left : left + width] = image
  return sheet


def captioned(picture: np.ndarray, text: str) -> np.ndarray:
  """uint8 [H,W,3] with a line of text, or as many as it takes, below it."""
  font = ImageFont.load_default_imagefont()  # all letters are 6 pixels wide
  lines = textwrap.wrap(text, max(12, (picture.shape[1] - 4) // 6))
  wide = max(picture.shape[1], 4 + 6 * max(map(len, lines)))
  image = Image.new("RGB", (wide, picture.shape[0] + 14 * len(lines) + 4), "white")
  image.paste(Image.fromarray(picture), (0, 0))
  for i, line in enumerate(lines):
    ImageDraw.Draw(image).text((2, picture.shape[0] + 2 + 14 * i), line, font=font, fill="black")
  return np.asarray(image)


def save_png(array: np.ndarray, path: str | os.PathLike[str]) -> None:
  """Writes uint8 [H,W], [H,W,1] or [H,W,3] as a PNG with our `MARK`; the file appears whole or not at all."""
  array = np.asarray(array)
  array = array[..., 0] if array.ndim == 3 and array.shape[-1] == 1 else array
  folder = os.path.dirname(os.path.abspath(path))
  try:
    os.makedirs(folder, exist_ok=True)
    handle, temporary = tempfile.mkstemp(suffix=".png", dir=folder)
  except OSError as error:
    raise UserError(f"cannot write {path}: {error.strerror}") from error
  try:
    about = PngInfo()
    about.add_text("Comment", MARK)
    with os.fdopen(handle, "wb") as file:
      Image.fromarray(array).save(file, format="PNG", pnginfo=about)
    os.chmod(temporary, 0o644)  # mkstemp gives files that only their owner may read
    os.replace(temporary, path)
  except BaseException:
    os.unlink(temporary)
    raise


def spectrogram(wave: np.ndarray, rate: int, height: int = 128, width: int = 256) -> np.ndarray:
  """[T] float -> uint8 [height,width,3]: log power over the last 80 dB, low frequencies at the bottom.

  The window is 32 ms (Hann), the frequency axis linear to rate / 2.
  """
  wave = np.asarray(wave, np.float64).reshape(-1)
  window = max(32, int(2 ** np.round(np.log2(0.032 * rate))))
  padded = np.pad(wave, (window // 2, window // 2 + max(0, window - len(wave))))
  starts = np.linspace(0, len(padded) - window, width).round().astype(int)
  frames = padded[starts[:, None] + np.arange(window)] * np.hanning(window)
  power = np.abs(np.fft.rfft(frames)) ** 2
  decibel = 10 * np.log10(np.maximum(power, 1e-12))
  level = np.clip((decibel - decibel.max()) / 80 + 1, 0, 1) if power.max() > 1e-12 else 0 * decibel
  image = Image.fromarray(heat(level.T[::-1])).resize((width, height), Image.Resampling.BICUBIC)
  return np.asarray(image)


def waveform(wave: np.ndarray, height: int = 64, width: int = 256) -> np.ndarray:
  """[T] float in [-1,1] -> uint8 [height,width,3]: the range of the samples under every column."""
  wave = np.clip(np.asarray(wave, np.float64).reshape(-1), -1, 1)
  picture = np.full((height, width, 3), 255, np.uint8)
  middle = (height - 1) / 2
  for column, part in enumerate(np.array_split(np.resize(wave, max(len(wave), width)), width)):
    top, bottom = int(np.floor(middle - middle * part.max())), int(np.ceil(middle - middle * part.min()))
    picture[top : bottom + 1, column] = (38, 70, 120)
  return picture


def heat(level: np.ndarray) -> np.ndarray:
  """[..] in [0,1] -> uint8 [..,3], black over purple and orange to pale yellow, evenly brighter."""
  stops = np.array([[0, 0, 4], [65, 15, 117], [158, 47, 127], [241, 96, 93], [254, 190, 130], [252, 253, 191]])
  places = np.linspace(0, 1, len(stops))
  return np.stack([np.interp(level, places, stops[:, c]) for c in range(3)], -1).round().astype(np.uint8)
