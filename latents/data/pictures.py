"""The reader of one picture."""

import os
from collections.abc import Sequence

import numpy as np
from PIL import Image

from latents.data.images import check_resized, read_image, resize
from latents.data.source import Broken
from latents.errors import UserError


def load_image(path: str | os.PathLike[str], size: int | Sequence[int] | None = None, channels: int = 3) -> np.ndarray:
  """One picture -> float32 [H,W,C] in [-1,1], C = channels (1 or 3).

  size: None keeps the picture; a side (or height, width) resizes it to cover that and crops the centre.
  Raises UserError when there is no such file or it is broken.
  """
  try:
    x = read_image(os.fspath(path), channels)
    if size is not None:
      height, width = (size, size) if isinstance(size, int) else size
      check_resized(x.shape[1], x.shape[0], max(height, width))
      x = cover(x, height, width)
  except Broken as error:
    reason = str(error) if os.path.exists(path) else "no such file"
    raise UserError(f"{path}: {reason}") from error
  return x.astype(np.float32) / 127.5 - 1


def cover(x: np.ndarray, height: int, width: int) -> np.ndarray:
  """uint8 [H,W,C] -> uint8 [height,width,C]: resized to cover that, aspect kept, then centre-cropped."""
  ratio = max(height / x.shape[0], width / x.shape[1])
  image = Image.fromarray(x[..., 0] if x.shape[-1] == 1 else x)
  image = resize(image, round(ratio * min(image.size)))
  if image.height < height or image.width < width:  # one pixel lost to rounding
    image = image.resize((max(image.width, width), max(image.height, height)), Image.Resampling.BICUBIC)
  x = np.asarray(image).reshape(image.height, image.width, -1)
  top, left = (x.shape[0] - height) // 2, (x.shape[1] - width) // 2
  return x[top : top + height, left : left + width]
