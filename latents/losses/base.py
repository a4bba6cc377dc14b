"""The contract of a loss, and `Weight` for terms that other parts make."""

import abc
import dataclasses
from typing import Any

import jax.numpy as jnp

from latents.types import Array

Tree = Any


@dataclasses.dataclass(frozen=True)
class Loss(abc.ABC):
  """A pure term of the objective; frozen, so it can be declared, stored and hashed.

  weight: factor in the objective (the term itself is logged unweighted). start: first step that counts.
  """

  weight: float = 1.0
  start: int = 0

  @abc.abstractmethod
  def __call__(self, x: Array, x_hat: Array, *, aux: Tree = None) -> Array:
    """x, x_hat [B,*S,C] in [-1,1] -> [] float32, mean over batch and elements. aux: what `load` gave."""

  def load(self) -> Tree:
    """Weights of frozen networks, or None. Raises UserError at the start when they are missing."""
    return None

  def abstract(self) -> Tree:
    """The tree of `load` as ShapeDtypeStructs, or None; needs no file (planning at paper scale)."""
    return None

  def gate(self, step: Array) -> Array:
    """step [] int -> [] float32: 0 before `start`, 1 from then on."""
    return jnp.asarray(step >= self.start, jnp.float32)


@dataclasses.dataclass(frozen=True)
class Weight(Loss):
  """The weight of a term that a bottleneck or a decoder makes itself (kl, commit, flow)."""

  def __call__(self, x: Array, x_hat: Array, *, aux: Tree = None) -> Array:
    """Never right: the term comes from the model."""
    raise TypeError("Weight only weighs a term of the model; it computes nothing")
