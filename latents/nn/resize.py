"""Grids of other sizes, as PyTorch's `interpolate` has them: one matrix an axis (Keys 1981 for the cubic)."""

import functools
from collections.abc import Callable

import jax
import jax.numpy as jnp
import numpy as np

from latents.types import Array

CUBIC = -0.75  # PyTorch's; jax.image has Keys's -0.5, and blurs first where a grid shrinks


@functools.cache
def area(size: int, to: int) -> np.ndarray:
  """[to,size] float64: row i is the mean over the elements that its share of the axis touches (mode "area")."""
  first, end = np.arange(to) * size // to, -(-np.arange(1, to + 1) * size // to)
  place = np.arange(size)
  inside = (place >= first[:, None]) & (place < end[:, None])
  return inside / inside.sum(1, keepdims=True)


@functools.cache
def bicubic(size: int, to: int) -> np.ndarray:
  """[to,size] float64: mode "bicubic" without aligned corners or a blur; beyond the ends the end is repeated."""
  centre = (np.arange(to) + 0.5) * size / to - 0.5
  out = np.zeros((to, size))
  for tap in range(-1, 3):
    place = np.floor(centre) + tap
    weight = _cubic(np.abs(centre - place))
    np.add.at(out, (np.arange(to), np.clip(place, 0, size - 1).astype(int)), weight)
  return out


def _cubic(x: np.ndarray) -> np.ndarray:
  """x in [0,2] -> the kernel's value at that distance."""
  near = ((CUBIC + 2) * x - (CUBIC + 3)) * x**2 + 1
  far = CUBIC * (((x - 5) * x + 8) * x - 4)
  return np.where(x <= 1, near, far)


def resized(x: Array, grid: tuple[int, ...], by: Callable[[int, int], np.ndarray]) -> Array:
  """x [B,*s,D] float32 -> [B,*grid,D], by `area` or `bicubic`, an axis after the other."""
  for axis, to in enumerate(grid, 1):
    if x.shape[axis] != to:
      matrix = jnp.asarray(by(x.shape[axis], to), jnp.float32)
      moved = jnp.tensordot(matrix, x, (1, axis), precision=jax.lax.Precision.HIGHEST)
      x = jnp.moveaxis(moved, 0, axis)
  return x
