"""Clips of one size: the windows in time and the crops that video sources share, and the reader of one clip."""

import os
import re
from typing import Any

import numpy as np
from PIL import Image

from latents.data.images import (
  PIXELS,
  check_resized,
  covering,
  crop_and_flip,
  eight_bit,
  load,
  open_image,
  read_image,
  resize,
)
from latents.data.source import Broken, Example, Size

ANIMATED = (".gif", ".webp", ".apng")
FRAMES = 100_000  # of one clip: a header that claims more is refused
TOGETHER = 8 * PIXELS  # pixels of all frames of one record


def span(frames: int, stride: int) -> int:
  """How many frames of the file `frames` frames cover, `stride` apart."""
  return (frames - 1) * stride + 1


def window(example: Example, frames: int, stride: int, rng: np.random.Generator, train: bool) -> Example:
  """Cuts "x" [T,H,W,C] to `frames` frames, `stride` apart: anywhere when `train`, else the middle; a clip that is too
  short is held at its last frame."""
  x = example["x"]
  spare = len(x) - span(frames, stride)
  start = 0 if spare <= 0 else int(rng.integers(spare + 1)) if train else spare // 2
  return {**example, "x": x[np.minimum(start + stride * np.arange(frames), len(x) - 1)]}


def crop(example: Example, size: Size, rng: np.random.Generator, train: bool, flip: bool) -> Example:
  """As `crop_and_flip`, the same for every frame of "x" [T,H,W,C]."""
  turned = crop_and_flip({**example, "x": example["x"].transpose(1, 2, 0, 3)}, size, rng, train, flip)
  return {**turned, "x": np.ascontiguousarray(turned["x"].transpose(2, 0, 1, 3))}


def resized(frames: np.ndarray, size: Size | None) -> np.ndarray:
  """uint8 [T,H,W,C] -> resized to cover `size`, antialiased; None leaves it."""
  height, width = frames.shape[1:3]
  if size is None or covering(width, height, size) == (width, height):
    return frames
  pictures = [np.asarray(resize(Image.fromarray(f[..., 0] if f.shape[-1] == 1 else f), size)) for f in frames]
  return np.stack(pictures).reshape(len(frames), *pictures[0].shape[:2], frames.shape[-1])


def natural(name: str) -> list[Any]:
  """A key that sorts frame 2 before frame 10."""
  return [(0, int(part), "") if part.isdigit() else (1, 0, part) for part in re.split(r"([0-9]+)", name)]


def stills(folder: str, extensions: tuple[str, ...]) -> list[str]:
  """The names of the frames in a folder, in natural order."""
  found = [n for n in os.listdir(folder) if n.lower().endswith(extensions) and not n.startswith(".")]
  return sorted(found, key=lambda name: (natural(name), name))


def count_frames(path: str) -> tuple[int, tuple[int, int]]:
  """(frames, (width, height)) of an animated file. Raises Broken."""
  with open_image(path) as image:
    try:
      count = int(getattr(image, "n_frames", 1))
    except Exception as error:
      raise Broken("truncated or corrupt") from error
    if count < 2:
      raise Broken("one frame is no clip")
    if count > FRAMES:
      raise Broken(f"claims {count} frames")
    return count, image.size


def read_animation(path: str, channels: int, size: Size | None, start: int = 0, count: int | None = None) -> np.ndarray:
  """uint8 [T,H,W,C]: `count` frames of an animated GIF or WebP from `start`. Raises Broken."""
  total, (width, height) = count_frames(path)
  count = total - start if count is None else min(count, total - start)
  check_resized(width, height, size)
  if count * width * height > TOGETHER:
    raise Broken(f"{count} frames of {width} x {height} are too many pixels")
  with open_image(path) as image:
    frames = [still(image, i, channels) for i in range(start, start + count)]
  try:
    return resized(np.stack(frames), size)
  except ValueError as error:
    raise Broken("frames of several sizes") from error


def still(image: Image.Image, i: int, channels: int) -> np.ndarray:
  """uint8 [H,W,C], frame i of an opened file. Raises Broken."""
  try:
    image.seek(i)
  except Exception as error:
    raise Broken("truncated or corrupt") from error
  frame = eight_bit(load(image).convert("RGBA"), channels)  # frames of GIFs switch between modes
  return np.asarray(frame).reshape(frame.height, frame.width, channels)


def read_stills(paths: list[str], channels: int, size: Size | None) -> np.ndarray:
  """uint8 [T,H,W,C] of frames that are files each. Raises Broken."""
  frames, pixels = [], 0
  for path in paths:
    try:
      frames.append(read_image(path, channels, size))
    except Broken as error:
      raise Broken(f"{os.path.basename(path)}: {error}") from error
    pixels += frames[-1].shape[0] * frames[-1].shape[1]
    if frames[-1].shape != frames[0].shape:
      raise Broken(f"{os.path.basename(path)} has another size than the first frame")
    if pixels > TOGETHER:
      raise Broken(f"{len(paths)} frames are too many pixels")
  return np.stack(frames)
