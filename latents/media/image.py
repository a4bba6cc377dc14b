"""Pictures [H,W,C], uint8 or float in [-1,1]."""

from typing import ClassVar

import numpy as np

from latents.media.base import Kind, eight_bit


class Image(Kind):
  """C is 1 or 3; more channels are not shown."""

  name: ClassVar[str] = "image"
  dtype: ClassVar[str] = "uint8"
  mirrored: ClassVar[bool] = True
  distances: ClassVar[bool] = True
  on: ClassVar[str] = "pixels"

  def stored(self, x: np.ndarray) -> np.ndarray:
    """uint8."""
    return eight_bit(x) if x.dtype != np.uint8 else x

  def values(self, x: np.ndarray) -> np.ndarray:
    """In [-1,1]."""
    return x / 127.5 - 1.0 if x.dtype == np.uint8 else np.asarray(x, np.float64)

  def tiles(self, x: np.ndarray, rate: int | None) -> np.ndarray:
    """The pictures themselves."""
    return x
