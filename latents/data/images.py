"""Robust decoding of image files, and the crops that image sources share."""

import contextlib
import functools
import io
import os
import warnings
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import numpy as np
from PIL import Image, ImageFile, ImageOps, PngImagePlugin, features

from latents.data.source import Broken, Example, Size, sides

PIXELS = 64_000_000  # larger pictures are refused: a few kB can claim to be gigabytes
# Nothing else is tried, whatever the bytes look like: for EPS, Pillow would start Ghostscript.
AVIF = bool(features.check("avif"))
FORMATS = ("JPEG", "PNG", "WEBP", "BMP", "DIB", "GIF", "TIFF", "PPM", *(["AVIF"] if AVIF else []))
EXTENSIONS = (
  ".jpg", ".jpeg", ".jpe", ".jfif", ".jif", ".png", ".apng", ".webp", ".bmp", ".dib", ".gif", ".tif", ".tiff", ".ppm",
  ".pgm", ".pbm", ".pnm", *([".avif"] if AVIF else []),
)  # fmt: skip
PLAIN = ("1", "L", "LA", "P", "RGB", "RGBA", "CMYK", "YCbCr", "I;16")  # modes that always become eight bits
THOROUGH = 1 << 30  # bytes of a folder up to which every file is decoded once in search of truncation

TEXT = 64 << 20  # bytes of text and profiles that a PNG may carry, unpacked

ImageFile.LOAD_TRUNCATED_IMAGES = False  # half a picture is a broken picture
PngImagePlugin.MAX_TEXT_CHUNK = PngImagePlugin.MAX_TEXT_MEMORY = TEXT  # Pillow's 1 MiB is less than editors write


def open_image(file: Any) -> Image.Image:
  """A path or binary file -> an opened, size-checked, not yet decoded picture. Raises Broken."""
  try:
    image = Image.open(file, formats=FORMATS)
    width, height = image.size
  except Image.DecompressionBombError as error:
    raise Broken("more pixels than the limit") from error
  except Exception as error:
    raise Broken("not a readable image") from error
  if width * height > PIXELS:
    raise Broken(f"{width} x {height} is more than {PIXELS // 1_000_000} million pixels")
  if width < 1 or height < 1:
    raise Broken("has no pixels")
  return image


def load(image: Image.Image) -> Image.Image:
  """Decodes. Raises Broken for truncated or corrupt data."""
  try:
    image.load()
    return image
  except Exception as error:
    raise Broken("truncated or corrupt") from error


def eight_bit(image: Image.Image, channels: int) -> Image.Image:
  """Any mode -> L (channels 1) or RGB (channels 3): transparency lies on white, and integers of 16 or 32 bits are
  scaled from 0..65535, whatever the brightest of a picture is. Raises Broken for those beyond."""
  if image.mode in ("I", "I;16", "I;16B", "I;16L", "I;16N"):
    values = np.asarray(image).astype(np.int64)
    if values.min(initial=0) < 0 or values.max(initial=0) > 65_535:
      raise Broken("32-bit pixels outside 0 to 65535 have no known range")
    image = Image.fromarray(np.round(values / 257.0).astype(np.uint8))
  elif image.mode == "F":
    raise Broken("floating-point pixels have no known range")
  if image.mode in ("LA", "La", "PA", "RGBA", "RGBa") or "transparency" in image.info:
    image = image.convert("RGBA")
    image = Image.alpha_composite(Image.new("RGBA", image.size, (255, 255, 255, 255)), image)
  return image.convert("L" if channels == 1 else "RGB")


def read_image(file: Any, channels: int = 3, size: Size | None = None) -> np.ndarray:
  """A path, bytes or binary file -> uint8 [H,W,C] with C = channels (1 or 3), upright by its EXIF mark.

  With `size` it is resized to cover it: of a square, the short side has that many pixels. Raises Broken.
  """
  with open_image(io.BytesIO(file) if isinstance(file, bytes) else file) as image:
    check_resized(*image.size, size)
    if size and image.format == "JPEG" and image.mode in ("L", "RGB"):
      with contextlib.suppress(Exception):
        most = max(sides(size))  # it may be turned yet
        image.draft(image.mode, (2 * most, 2 * most))  # decodes at 1/2, 1/4 or 1/8: much less work
    load(image)
    try:
      image = eight_bit(upright(image), channels)
      x = np.asarray(resize(image, size) if size else image)
    except Broken:
      raise
    except Exception as error:
      raise Broken("cannot be converted") from error
  return x[..., None] if x.ndim == 2 else x


def upright(image: Image.Image) -> Image.Image:
  """Turned by its EXIF mark; one with a damaged mark stays as it is."""
  try:
    return ImageOps.exif_transpose(image)
  except Exception:  # noqa: BLE001  (Pillow raises what it happens to meet)
    return image


def check_resized(width: int, height: int, size: Size | None) -> None:
  """Raises Broken where a strip one pixel wide would become a picture of billions of pixels."""
  short = max(sides(size)) if size else 0
  if short and short * short * max(width, height) // min(width, height) > PIXELS:
    raise Broken(f"{width} x {height} would be more than {PIXELS // 1_000_000} million pixels when resized")


def covering(width: int, height: int, size: Size) -> tuple[int, int]:
  """(width, height) of a picture that is resized to cover `size`, its aspect kept."""
  tall, wide = sides(size)
  ratio = max(tall / height, wide / width)
  return max(wide, round(width * ratio)), max(tall, round(height * ratio))


def resize(image: Image.Image, size: Size) -> Image.Image:
  """Antialiased bicubic resize to cover `size`: of a square, the short side has that many pixels."""
  wanted = covering(*image.size, size)
  return image if wanted == image.size else image.resize(wanted, Image.Resampling.BICUBIC)


def smaller(shape: Sequence[int], size: Size) -> bool:
  """Whether a picture of (height, width, ..) cannot be cropped to `size`."""
  tall, wide = sides(size)
  return shape[0] < tall or shape[1] < wide


def crop_and_flip(example: Example, size: Size, rng: np.random.Generator, train: bool, flip: bool) -> Example:
  """Crops "x" [H,W,C] to `size`: anywhere when `train`, else the centre; mirrors half of the
  training examples when `flip`."""
  x, (tall, wide) = example["x"], sides(size)
  down, right = x.shape[0] - tall, x.shape[1] - wide
  top = int(rng.integers(down + 1)) if train and down else down // 2
  left = int(rng.integers(right + 1)) if train and right else right // 2
  if down or right:
    x = x[top : top + tall, left : left + wide]
  if train and flip and rng.random() < 0.5:
    x = x[:, ::-1]
  return {**example, "x": x}


def fits(found: tuple[int, int], size: Size, resize: bool) -> str:
  """Why a picture of this (width, height) cannot become one of `size`, by a resize or a crop; '' if it can."""
  if not resize:
    said = size if isinstance(size, int) else f"{size[1]} x {size[0]}"
    return f"{found[0]} x {found[1]} is smaller than the crop of {said}" if smaller(found[::-1], size) else ""
  try:
    check_resized(*found, size)
  except Broken as error:
    return str(error)
  return ""


def check(path: str, thorough: bool) -> tuple[str, tuple[int, int]]:
  """(reason why the file cannot be used or '', (width, height) as stored)."""
  try:
    with open_image(path) as image:
      size = image.size
      if image.mode not in PLAIN:
        read_image(path)  # whether it can be converted depends on what is in it
      elif thorough:
        # The smallest draft skips most of the work of a JPEG but still reads every coefficient.
        with contextlib.suppress(Exception):  # what it means is said by `load`
          image.draft(image.mode, (1, 1))
        load(image)
      elif image.format in ("JPEG", "PNG") and not whole(path):
        return "truncated or corrupt", size
      return "", size
  except Broken as error:
    return str(error), (0, 0)


def whole(path: str) -> bool:
  """Whether the end mark of a JPEG or PNG is near the end of the file: finds cut files without decoding."""
  with open(path, "rb") as file:
    file.seek(max(0, os.path.getsize(path) - 65_536))
    tail = file.read()
  return b"\xff\xd9" in tail or b"IEND" in tail


@functools.cache
def checked(path: str, size: int, changed: int, thorough: bool) -> tuple[str, tuple[int, int]]:
  """`check`, once for each state (bytes, time of change) of a file: both splits look through one folder."""
  return check(path, thorough)


def check_all(paths: Sequence[str]) -> list[tuple[str, tuple[int, int]]]:
  """`check` of many files on all cores; thorough when the files are together small."""
  states = []
  for path in paths:
    try:
      stat = os.stat(path)
      states.append((path, stat.st_size, stat.st_mtime_ns))
    except OSError:
      states.append((path, 0, 0))  # a dangling link: `check` says so
  thorough = sum(size for _, size, _ in states) <= THOROUGH
  with warnings.catch_warnings(), ThreadPoolExecutor(os.cpu_count()) as pool:
    warnings.simplefilter("ignore")  # PIL warns of large pictures by itself; ours is the one line
    return list(pool.map(lambda state: checked(*state, thorough), states))
