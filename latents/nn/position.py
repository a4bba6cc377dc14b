"""Fixed sine-cosine position embeddings for grids of any number of axes."""

import numpy as np

from latents.errors import UserError


def sincos_line(positions: np.ndarray, width: int) -> np.ndarray:
  """positions [N] -> [N,width]: sines then cosines of positions / 10000^(2i/width) (Vaswani et al. 2017)."""
  omega = 10000.0 ** (-np.arange(width // 2) / (width // 2))
  angle = positions.reshape(-1, 1).astype(np.float64) * omega
  return np.concatenate([np.sin(angle), np.cos(angle)], 1)


def sincos(grid: tuple[int, ...], width: int) -> np.ndarray:
  """[prod(grid),width] float32: each axis has an equal share of the channels, the LAST axis first.

  The order of the axes is DiT's and MAE's (their meshgrid puts w before h); rows are in raster order.
  Raises UserError where width does not divide by twice the number of axes.
  """
  if width % (2 * len(grid)):
    raise UserError(f"sincos positions on {len(grid)} axes need a width that {2 * len(grid)} divides, not {width}")
  share = width // len(grid)
  index = np.indices(grid).reshape(len(grid), -1)
  return np.concatenate([sincos_line(i, share) for i in index[::-1]], 1).astype(np.float32)
