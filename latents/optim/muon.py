"""Muon: the momentum of a kernel, made orthogonal."""

import dataclasses
from typing import Any, Literal

import jax
import optax
from optax import contrib

from latents.optim.base import Decays, Optimizer, is_kernel, mask, path_of
from latents.types import Array, later


@dataclasses.dataclass(frozen=True)
class Muon(Optimizer):
  """Muon (Jordan et al. 2024, kellerjordan.github.io/posts/muon) for kernels; AdamW with Nesterov momentum, as optax,
  for the rest.

  A kernel [*k,E,F] is the matrix [prod(k) E,F] of a layer; its update is the orthogonal factor of the Nesterov
  momentum by five Newton-Schulz iterations, times lr sqrt(max(1, F / (prod(k) E))). Kernels are the leaves of that
  name, with two axes or more; embeddings, norms and biases are Adam's. lr, momentum: of the kernels. adam_lr, betas:
  of the rest. decay: decoupled, times the group's lr. eps: of both. clip, warmup, schedule, final, decays: as of every
  optimiser.
  """

  lr: float = 0.02
  momentum: float = 0.95
  adam_lr: float = 3e-4
  betas: tuple[float, float] = (0.9, 0.95)
  eps: float = 1e-8
  decay: float = 0.0
  clip: float = 0.0
  warmup: int = 0
  schedule: Literal["constant", "cosine"] = "constant"
  final: float = 0.0
  decays: Literal["all", "kernels"] = later("all")

  def transform(self, schedule: optax.Schedule, decays: Decays | None) -> optax.GradientTransformation:
    """Both rules on one schedule, each with its own peak."""
    small = self.adam_lr / self.lr if self.lr else 0.0
    return contrib.muon(
      schedule,
      beta=self.momentum,
      eps=self.eps,
      weight_decay=self.decay,
      weight_decay_mask=mask(decays),
      adam_b1=self.betas[0],
      adam_b2=self.betas[1],
      adam_weight_decay=self.decay if decays is None else 0.0,  # what is left to Adam is no kernel
      adam_learning_rate=lambda count: small * schedule(count),
      muon_weight_dimension_numbers=_matrices,
    )


def _matrices(params: Any) -> Any:
  """Of each leaf how it is a matrix; None for those that are left to Adam."""

  def of(path: tuple, leaf: Array) -> contrib.MuonDimensionNumbers | None:
    if not is_kernel(path_of(path)) or leaf.ndim < 2:
      return None
    return contrib.MuonDimensionNumbers(tuple(range(leaf.ndim - 1)), leaf.ndim - 1)

  return jax.tree_util.tree_map_with_path(of, params)
