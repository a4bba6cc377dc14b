"""The 1,797 handwritten digits that come with scikit-learn (Alpaydin & Kaynak 1998, UCI, CC BY 4.0)."""

import dataclasses
import functools

import numpy as np
from PIL import Image

from latents.data.source import Arrays, Records, Size, Source, Split, sides

TEST = 297


@dataclasses.dataclass(frozen=True)
class Digits(Source):
  """8 x 8 grey digits (0..16 -> 0..255), bicubically resized to `size`. 1,500 train, 297 test, stratified."""

  size: Size = 32

  @property
  def shape(self) -> tuple[int, ...]:
    """[H,W,C] after the crop."""
    return (*sides(self.size), 1)

  @property
  def names(self) -> tuple[str, ...]:
    """The label names."""
    return tuple("0123456789")

  def records(self, split: Split) -> Records:
    """As `Source.records`."""
    x, label, test = digits(self.size)
    rows = test if split == "test" else ~test
    return Arrays(x=x[rows], label=label[rows])


@functools.lru_cache(maxsize=4)
def digits(size: Size) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
  """(x uint8 [1797,H,W,1], label int32 [1797], test bool [1797])."""
  from sklearn.datasets import load_digits  # slow to import, and needed by this source alone

  images, target = load_digits(return_X_y=True)
  grey = np.round(images.reshape(-1, 8, 8) * (255 / 16)).astype(np.uint8)
  height, width = sides(size)
  x = np.stack([np.asarray(Image.fromarray(g).resize((width, height), Image.Resampling.BICUBIC)) for g in grey])
  return x[..., None], target.astype(np.int32), stratified(target, TEST)


def stratified(label: np.ndarray, count: int) -> np.ndarray:
  """bool [N] with `count` true: every class in its proportion, the remainder to the largest fractions."""
  rng = np.random.default_rng(0)
  values, sizes = np.unique(label, return_counts=True)
  exact = sizes * count / len(label)
  share = np.floor(exact).astype(int)
  share[np.argsort(share - exact, kind="stable")[: count - share.sum()]] += 1
  test = np.zeros(len(label), bool)
  for value, n in zip(values, share, strict=True):
    test[rng.permutation(np.flatnonzero(label == value))[:n]] = True
  return test
