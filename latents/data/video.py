"""Clips in a folder: animated files, or folders of frames."""

import dataclasses
import functools
import os
from collections.abc import Iterable

import numpy as np

from latents.data import clips
from latents.data.audio import cut
from latents.data.images import EXTENSIONS, check_all, fits
from latents.data.listing import Listing, arrange
from latents.data.source import (
  Broken,
  Decoded,
  Example,
  Records,
  Size,
  Source,
  Split,
  place,
  sides,
  sizes,
  warn_skipped,
)
from latents.data.walk import look
from latents.errors import UserError

STILLS = tuple(ending for ending in EXTENSIONS if ending not in clips.ANIMATED)


@dataclasses.dataclass(frozen=True)
class Video(Source):
  """Clips below `path`, as "x" uint8 [frames,H,W,C]: animated GIF and WebP files, and folders of frames (any
  other picture), in the natural order of their names.

  `frames` frames are taken `stride` apart: anywhere in training, else the middle; shorter clips are held at their last
  frame, and clips of more than four spans are cut into records of at most two. A frame is made to cover `size` before
  the crop, which is the same in every frame. Splits and labels are as in `Folder`, of whole clips. Broken files,
  pictures that do not move and clips of one frame are left out: one warning names them.
  """

  kind = "video"
  path: str = place()
  frames: int = 16
  stride: int = 1
  size: Size = 64
  channels: int = 3  # 1 or 3
  flip: bool = True

  @property
  def shape(self) -> tuple[int, ...]:
    """[T,H,W,C] after the crop."""
    return (self.frames, *sides(self.size), self.channels)

  @functools.cached_property
  def listing(self) -> Listing:
    """The clips of both splits; read once."""
    files, left = look(self.path).pick(EXTENSIONS)
    moving = [name for name in files if name.lower().endswith(clips.ANIMATED)]
    frames = [os.path.dirname(name) for name in files if name.lower().endswith(STILLS)]
    if alone := frames.count(""):
      left.append(f"{alone} pictures that lie in no folder of frames")
    found = [*moving, *(set(frames) - {""})]
    return arrange(self.path, found, left, "clips (animated GIF or WebP files, or folders of frames)").tell()

  @property
  def note(self) -> str:
    """As `Source.note`."""
    return self.listing.line()

  @property
  def names(self) -> tuple[str, ...]:
    """The label names."""
    return self.listing.names

  def files(self, name: str) -> list[str]:
    """The files of a clip, relative to `path`."""
    folder = os.path.join(self.path, name)
    return [f"{name}/{still}" for still in clips.stills(folder, STILLS)] if os.path.isdir(folder) else [name]

  def contents(self) -> Iterable[str]:
    """Every file of both splits with its size."""
    return sizes(self.path, (file for name in self.listing.train + self.listing.test for file in self.files(name)))

  def records(self, split: Split) -> Records:
    """As `Source.records`."""
    parts: list[tuple[str, int, int]] = []  # (clip, first frame, frames)
    skipped = []
    for name in self.listing.files(split):
      try:
        count = self.count(name)
        parts.extend((name, *part) for part in cut(count, 1, clips.span(self.frames, self.stride), 1))
      except Broken as error:
        skipped.append(f"{name} ({error})")
    if not parts:
      why = f": {skipped[0]}" if skipped else f" (all {len(self.listing.train)} are in the other split)"
      raise UserError(f"no usable clip for the {split} split in {self.path}{why}")
    warn_skipped(self.path, skipped)
    return Decoded(len(parts), functools.partial(self.read, parts), skipped)

  def count(self, name: str) -> int:
    """The frames of a clip, its files looked through. Raises Broken."""
    path = os.path.join(self.path, name)
    if not os.path.isdir(path):
      count, size = clips.count_frames(path)
      if reason := fits(size, self.size, True):
        raise Broken(reason)
      clips.read_animation(path, 1, 8, count - 1, 1)  # truncation shows at the end
      return count
    files = self.files(name)
    if len(files) < 2:
      raise Broken("one frame is no clip")
    for file, (reason, size) in zip(files, check_all([os.path.join(self.path, f) for f in files]), strict=True):
      if reason := reason or fits(size, self.size, True):
        raise Broken(f"{file.rsplit('/', 1)[-1]}: {reason}")
    return len(files)

  def read(self, parts: list[tuple[str, int, int]], i: int) -> Example:
    """Record i: "x" uint8 [T,H,W,C] before the crops, and "label" where there are labels."""
    name, start, count = parts[i]
    path = os.path.join(self.path, name)
    try:
      if os.path.isdir(path):
        files = [os.path.join(self.path, f) for f in self.files(name)[start : start + count]]
        x = clips.read_stills(files, self.channels, self.size)
      else:
        x = clips.read_animation(path, self.channels, self.size, start, count)
    except Broken as error:
      raise Broken(f"{name} ({error})") from error
    label = self.listing.label(name)
    return {"x": x} if label is None else {"x": x, "label": np.int32(label)}

  def augment(self, example: Example, rng: np.random.Generator, train: bool) -> Example:
    """As `Source.augment`: a random window and crop (and mirror image) in training."""
    return clips.crop(clips.window(example, self.frames, self.stride, rng, train), self.size, rng, train, self.flip)
