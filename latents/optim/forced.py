"""Adam for networks whose kernels have a direction alone (`nn/magnitude.py`)."""

import dataclasses
from typing import Any

import jax
import jax.numpy as jnp

from latents.optim.adam import Adam
from latents.optim.base import is_kernel, path_of
from latents.types import Array


@dataclasses.dataclass(frozen=True)
class Forced(Adam):
  """Adam, after each update of which every kernel [*k,C,F] has magnitude 1 for each of its F outputs again: "forced
  weight normalization" of EDM2 (Karras et al. 2024, arXiv:2312.02696, section 2.3, eq. 66).

  Kernels are used normalised, so that their length does not change what a network gives, and the gradient is orthogonal
  to them; but every update makes them longer, and a relative rate would fall in a way that nobody chose. EDM2's own
  rate: schedule "root" (section 2.3 there: lr / sqrt(max(t / over, 1))). Fields as of `Adam`.
  """

  def project(self, params: Any) -> Any:
    """The same with kernels divided by their root mean square over all axes but the last."""

    def of(path: tuple, leaf: Array) -> Array:
      if not is_kernel(path_of(path)) or leaf.ndim < 2:
        return leaf
      return leaf * jax.lax.rsqrt(jnp.square(leaf).mean(tuple(range(leaf.ndim - 1)), keepdims=True) + 1e-12)

    return jax.tree_util.tree_map_with_path(of, params)
