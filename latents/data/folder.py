"""A folder of pictures: class subfolders or flat, of any size and mode."""

import dataclasses
import functools
import os
from collections.abc import Iterable

import numpy as np

from latents.data.images import EXTENSIONS, check_all, crop_and_flip, fits, read_image, smaller
from latents.data.listing import Listing, list_folder
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
from latents.errors import UserError


@dataclasses.dataclass(frozen=True)
class Folder(Source):
  """Pictures below `path`, in the sorted order of their relative paths.

  Splits: folders named train and test (or training, validation, val2017, ...), in any case, where both exist, else
  about a tenth by a hash of the relative path. Labels: the subfolders (below the split's, or around them), where there
  are at least two and no file lies outside; a folder that alone holds everything counts for nothing. Links are
  followed, outputs of latents are no data; one warning says what is not used. size: the side of a square, or height
  and width. With `resize` a picture is made to cover it before the crop (of a square: its short side becomes `size`);
  without it, pictures smaller than the crop are left out. Broken, truncated and absurdly large files are left out too:
  one warning names them.
  """

  path: str = place()
  size: Size = 64
  channels: int = 3  # 1 or 3
  resize: bool = True
  flip: bool = True

  @property
  def shape(self) -> tuple[int, ...]:
    """[H,W,C] after the crop."""
    return (*sides(self.size), self.channels)

  @functools.cached_property
  def listing(self) -> Listing:
    """The files of both splits; read once."""
    return list_folder(self.path, EXTENSIONS, "image files").tell()

  @property
  def note(self) -> str:
    """As `Source.note`."""
    return self.listing.line()

  @property
  def names(self) -> tuple[str, ...]:
    """The label names."""
    return self.listing.names

  def contents(self) -> Iterable[str]:
    """Every file of both splits with its size."""
    return sizes(self.path, self.listing.train + self.listing.test)

  def records(self, split: Split) -> Records:
    """As `Source.records`."""
    files = self.listing.files(split)
    checks = check_all([os.path.join(self.path, name) for name in files])
    kept, skipped = [], []
    for name, (reason, size) in zip(files, checks, strict=True):
      if reason := reason or fits(size, self.size, self.resize):
        skipped.append(f"{name} ({reason})")
      else:
        kept.append(name)
    if not kept:
      why = f": {skipped[0]}" if skipped else f" (all {len(self.listing.train)} are in the other split)"
      raise UserError(f"no usable image for the {split} split in {self.path}{why}")
    warn_skipped(self.path, skipped)
    label = [self.listing.label(name) for name in kept]
    return Decoded(len(kept), functools.partial(self.read, kept, label), skipped)

  def read(self, names: list[str], label: list[int | None], i: int) -> Example:
    """Record i: "x" uint8 [H,W,C] before the crop, and "label" where there are labels."""
    path, number = os.path.join(self.path, names[i]), label[i]
    try:
      x = read_image(path, self.channels, self.size if self.resize else None)
    except Broken as error:
      raise Broken(f"{names[i]} ({error})") from error
    if smaller(x.shape, self.size):  # one that was turned
      raise Broken(f"{names[i]} ({x.shape[1]} x {x.shape[0]} is smaller than the crop)")
    return {"x": x} if number is None else {"x": x, "label": np.int32(number)}

  def augment(self, example: Example, rng: np.random.Generator, train: bool) -> Example:
    """As `Source.augment`: a random crop (and mirror image) in training."""
    return crop_and_flip(example, self.size, rng, train, self.flip)
