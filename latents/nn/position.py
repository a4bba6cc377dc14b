"""Fixed positions for grids of any number of axes: sines and cosines to add, rotations of queries and keys."""

import jax.numpy as jnp
import numpy as np

from latents.errors import UserError
from latents.types import Array


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


def rotary(grid: tuple[int, ...], head: int) -> np.ndarray:
  """[prod(grid),head//2] float32: the angle by which `turn` rotates each pair of a head (Su et al. 2021, 2104.09864).

  Each axis has an equal share of the pairs, the FIRST axis first; pair i of a share of n turns by position *
  10000^(-i/n) (EVA's and LightningDiT's: half a head an axis on a picture). Pairs that remain do not turn.
  Raises UserError where a head has fewer pairs than the grid has axes.
  """
  share = head // (2 * len(grid))
  if not share:
    raise UserError(f"rotary positions on {len(grid)} axes need heads of at least {2 * len(grid)}, not {head}")
  index = np.indices(grid).reshape(len(grid), -1, 1)
  angles = np.concatenate(list(index * 10000.0 ** (-np.arange(share) / share)), 1)
  return np.pad(angles, ((0, 0), (0, head // 2 - angles.shape[1]))).astype(np.float32)


def turn(x: Array, angles: Array) -> Array:
  """x [B,N,heads,F], angles [N,F/2] -> same shape: each pair (x_2i, x_2i+1) rotated by angle i; in float32."""
  cos, sin = jnp.cos(angles)[:, None], jnp.sin(angles)[:, None]
  a, b = x[..., ::2].astype(jnp.float32), x[..., 1::2].astype(jnp.float32)
  return jnp.stack([a * cos - b * sin, a * sin + b * cos], -1).reshape(x.shape).astype(x.dtype)
