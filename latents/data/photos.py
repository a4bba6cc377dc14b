"""The colour photographs inside the scikit-image and scikit-learn wheels: real texture, no download."""

import dataclasses
import functools
import importlib.util
import os
from collections.abc import Iterable

import numpy as np
from PIL import Image

from latents.data.images import crop_and_flip, read_image, smaller
from latents.data.source import Decoded, Example, Records, Size, Source, Split, sides
from latents.errors import UserError

# All are public domain or CC0/CC-BY: see skimage/data/README.txt and sklearn/datasets/images/README.txt.
PHOTOGRAPHS = {
  "train": ("astronaut.png", "china.jpg", "coffee.png", "motorcycle_left.png", "rocket.jpg"),
  "test": ("chelsea.png", "flower.jpg"),  # whole photographs are held out: no crop size can leak
}


@dataclasses.dataclass(frozen=True)
class Photos(Source):
  """Windows of seven photographs, at all scales from the pixel to the whole picture; no labels.

  train: `count` windows (a fixed function of the index) a quarter larger than the crop, which is random in
  training. test: the tiles of the held-out photographs at their size and its halvings.
  """

  size: Size = 64
  count: int = 4096
  flip: bool = True

  @property
  def shape(self) -> tuple[int, ...]:
    """[H,W,C] after the crop."""
    return (*sides(self.size), 3)

  def contents(self) -> Iterable[str]:
    """The fields and the photographs, with the sizes of their files."""
    names = [locate(name) for part in PHOTOGRAPHS.values() for name in part]
    return [*super().contents(), *(f"{os.path.basename(n)} {os.path.getsize(n)}" for n in names)]

  def records(self, split: Split) -> Records:
    """As `Source.records`."""
    photographs = [photograph(name) for name in PHOTOGRAPHS[split]]
    if any(smaller(image.size[::-1], self.size) for image in photographs):
      raise UserError(f"photos: size {self.size} is larger than the smallest photograph (300 pixels)")
    if split == "train":
      return Decoded(self.count, functools.partial(window, photographs, self.size))
    tiles = [tile for image in photographs for tile in tiled(image, self.size)]
    return Decoded(len(tiles), lambda i: {"x": tiles[i]})

  def augment(self, example: Example, rng: np.random.Generator, train: bool) -> Example:
    """As `Source.augment`: a random crop (and mirror image) in training."""
    return crop_and_flip(example, self.size, rng, train, self.flip)


def window(photographs: list[Image.Image], size: Size, i: int) -> Example:
  """Window i: a part of a photograph with the sides' ratio, its short side log-uniform between the window's and the
  largest that fits."""
  rng = np.random.default_rng((0x9807, i))
  image = photographs[i % len(photographs)]
  height, width = sides(size)
  least = min(height, width)

  def across(side: int) -> tuple[int, int]:  # short side -> (width, height)
    return side * width // least, side * height // least

  short = min(image.width * least // width, image.height * least // height)
  wide = min(least + least // 4, short)
  side = round(float(np.exp(rng.uniform(np.log(wide), np.log(short)))))
  left, top = (int(rng.integers(whole - part + 1)) for whole, part in zip(image.size, across(side), strict=True))
  box = (left, top, left + across(side)[0], top + across(side)[1])
  return {"x": np.asarray(image.resize(across(wide), Image.Resampling.BICUBIC, box=box))}


def tiled(image: Image.Image, size: Size) -> list[np.ndarray]:
  """The centred grid of tiles of `size` of an image, of its half, its quarter, ..."""
  tiles, (height, width) = [], sides(size)
  while not smaller(image.size[::-1], size):
    x = np.asarray(image)
    rows, columns = x.shape[0] // height, x.shape[1] // width
    top, left = (x.shape[0] - rows * height) // 2, (x.shape[1] - columns * width) // 2
    for r in range(rows):
      for c in range(columns):
        tiles.append(x[top + r * height :, left + c * width :][:height, :width])
    image = image.resize((image.width // 2, image.height // 2), Image.Resampling.BOX)
  return tiles


@functools.cache
def photograph(name: str) -> Image.Image:
  """An RGB photograph by file name. Raises UserError when the wheels on this machine lack it."""
  return Image.fromarray(read_image(locate(name)))


def locate(name: str) -> str:
  """The path of a photograph. Raises UserError when the wheels on this machine lack it."""
  for package, folder in (("skimage", "data"), ("sklearn", "datasets/images")):
    spec = importlib.util.find_spec(package)  # finds the folder without the slow import
    for place in (spec.submodule_search_locations or []) if spec else []:
      path = os.path.join(place, folder, name)
      if os.path.exists(path):
        return path
  raise UserError(f"photos: {name} is not here; install scikit-image and scikit-learn")
