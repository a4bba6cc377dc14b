"""Clips in prepared TFDS data sets, each one picture: its square frames side by side."""

import dataclasses
import functools
import io

import numpy as np

from latents.data import clips
from latents.data.audio import cut
from latents.data.images import open_image, read_image, smaller
from latents.data.records import Shards, example
from latents.data.source import Broken, Decoded, Example, Records, Split, sides
from latents.data.tfds import Tfds, one, open_split
from latents.errors import UserError


@dataclasses.dataclass(frozen=True)
class Strips(Tfds):
  """As `Tfds`, whose picture [S,S*frames,C] is a clip; "x" uint8 [frames,H,W,C] as of `Video`.

  What is wider than a whole number of frames is cut off; a strip of one frame is left out.
  """

  kind = "video"
  frames: int = 16
  stride: int = 1

  @property
  def shape(self) -> tuple[int, ...]:
    """[T,H,W,C] after the crop."""
    return (self.frames, *sides(self.size), self.channels)

  def records(self, split: Split) -> Records:
    """As `Source.records`; every strip's header is read."""
    if self.labels not in (None, len(self.names)):
      raise UserError(f"the data set in {self.folder} has {len(self.names)} labels, not {self.labels}")
    shards = open_split(split, self.prepared)
    parts: list[tuple[int, int, int]] = []  # (record, first frame, frames)
    skipped = []
    for i in range(len(shards)):
      try:
        strip = one(example(shards[i], (self.prepared.image, "")), self.prepared.image, bytes)
        with open_image(io.BytesIO(strip)) as image:
          count = image.width // image.height
        if count < 2:
          raise Broken("one frame is no clip")
        parts.extend((i, *part) for part in cut(count, 1, clips.span(self.frames, self.stride), 1))
      except Broken as error:
        skipped.append(f"record {i} ({error})")
    if not parts:
      raise UserError(f"no usable clip for the {split} split in {self.folder}{': ' + skipped[0] if skipped else ''}")
    return Decoded(len(parts), functools.partial(self.part, shards, parts), skipped)

  def part(self, shards: Shards, parts: list[tuple[int, int, int]], i: int) -> Example:
    """Record i: "x" uint8 [T,H,W,C] before the crops, and "label" where there are labels."""
    record, start, count = parts[i]
    image, label = self.prepared.image, self.prepared.label
    try:
      found = example(shards[record], (image, label or ""))
      x = read_image(one(found, image, bytes), self.channels)
      number = one(found, label, int) if label else 0
    except Broken as error:
      raise Broken(f"record {record} of {self.name} ({error})") from error
    if label and not 0 <= number < len(self.names):
      raise Broken(f"record {record} of {self.name} (label {number} of {len(self.names)})")
    side = x.shape[0]
    x = x[:, start * side : (start + count) * side].reshape(side, -1, side, self.channels).transpose(1, 0, 2, 3)
    if self.resize:
      x = clips.resized(x, self.size)
    if smaller(x.shape[1:], self.size):
      raise Broken(f"record {record} of {self.name} ({side} pixels are smaller than the crop)")
    return {"x": np.ascontiguousarray(x)} | ({"label": np.int32(number)} if label else {})

  def augment(self, example: Example, rng: np.random.Generator, train: bool) -> Example:
    """As `Source.augment`: a random window and crop (and mirror image) in training."""
    return clips.crop(clips.window(example, self.frames, self.stride, rng, train), self.size, rng, train, self.flip)
