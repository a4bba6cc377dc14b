"""Grids to patch tokens and back."""

import math

from latents.errors import UserError
from latents.types import Array


def patchify(x: Array, patch: int) -> tuple[Array, tuple[int, ...]]:
  """[B,*S,C] -> tokens [B,N,patch^n C] in raster order, and the grid of the tokens (prod = N).

  Inside a token the order is (p q c): rows, columns, channels. Raises UserError where patch divides an axis not.
  """
  axes = x.shape[1:-1]
  for n in axes:
    if n % patch:
      raise UserError(f"patch {patch} does not divide the axis of {n} in a grid of {axes}")
  grid = tuple(n // patch for n in axes)
  split = [n for g in grid for n in (g, patch)]
  x = x.reshape(x.shape[0], *split, x.shape[-1])
  order = [0, *range(1, 2 * len(grid), 2), *range(2, 2 * len(grid) + 1, 2), 2 * len(grid) + 1]
  return x.transpose(order).reshape(x.shape[0], math.prod(grid), -1), grid


def unpatchify(tokens: Array, grid: tuple[int, ...], patch: int) -> Array:
  """tokens [B,N,patch^n C], grid -> [B,*S,C]: the inverse of `patchify`."""
  axes = len(grid)
  x = tokens.reshape(tokens.shape[0], *grid, *[patch] * axes, -1)
  order = [0, *[i for a in range(axes) for i in (1 + a, 1 + axes + a)], 2 * axes + 1]
  return x.transpose(order).reshape(tokens.shape[0], *[g * patch for g in grid], -1)
