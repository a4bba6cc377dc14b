"""The colour photographs inside the scikit-image and scikit-learn wheels: real texture, no download."""

import dataclasses
import functools
import importlib.util
import os
from collections.abc import Iterable

import numpy as np
from PIL import Image

from latents.data.images import crop_and_flip, read_image
from latents.data.source import Decoded, Example, Records, Source, Split
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

  size: int = 64
  count: int = 4096
  flip: bool = True

  @property
  def shape(self) -> tuple[int, ...]:
    """[H,W,C] after the crop."""
    return (self.size, self.size, 3)

  def contents(self) -> Iterable[str]:
    """The fields and the photographs, with the sizes of their files."""
    names = [locate(name) for part in PHOTOGRAPHS.values() for name in part]
    return [*super().contents(), *(f"{os.path.basename(n)} {os.path.getsize(n)}" for n in names)]

  def records(self, split: Split) -> Records:
    """As `Source.records`."""
    photographs = [photograph(name) for name in PHOTOGRAPHS[split]]
    if min(min(image.size) for image in photographs) < self.size:
      raise UserError(f"photos: size {self.size} is larger than the smallest photograph (300 pixels)")
    if split == "train":
      return Decoded(self.count, functools.partial(window, photographs, self.size))
    tiles = [tile for image in photographs for tile in tiled(image, self.size)]
    return Decoded(len(tiles), lambda i: {"x": tiles[i]})

  def augment(self, example: Example, rng: np.random.Generator, train: bool) -> Example:
    """As `Source.augment`: a random crop (and mirror image) in training."""
    return crop_and_flip(example, self.size, rng, train, self.flip)


def window(photographs: list[Image.Image], size: int, i: int) -> Example:
  """Window i: a square of a photograph, its side log-uniform between the window and the whole picture."""
  rng = np.random.default_rng((0x9807, i))
  image = photographs[i % len(photographs)]
  short = min(image.size)
  wide = min(size + size // 4, short)
  side = round(float(np.exp(rng.uniform(np.log(wide), np.log(short)))))
  left, top = (int(rng.integers(extent - side + 1)) for extent in image.size)
  box = (left, top, left + side, top + side)
  return {"x": np.asarray(image.resize((wide, wide), Image.Resampling.BICUBIC, box=box))}


def tiled(image: Image.Image, size: int) -> list[np.ndarray]:
  """The centred grid of tiles [size,size,3] of an image, of its half, its quarter, ..."""
  tiles = []
  while min(image.size) >= size:
    x = np.asarray(image)
    rows, columns = x.shape[0] // size, x.shape[1] // size
    top, left = (x.shape[0] - rows * size) // 2, (x.shape[1] - columns * size) // 2
    for r in range(rows):
      for c in range(columns):
        tiles.append(x[top + r * size :, left + c * size :][:size, :size])
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
