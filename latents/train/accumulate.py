"""Gradients of a batch in parts, one after another: the memory of one part for the batch of all."""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp

from latents.types import Array, Batch

Tree = Any


def accumulate(
  fn: Callable[[Tree, Batch, Array], tuple[Tree, Tree]], variables: Tree, batch: Batch, parts: int, key: Array
) -> tuple[Tree, Tree]:
  """fn(variables, part, key) -> (tree of float means, variables), for each of `parts` equal parts of the batch.

  Returns the mean of the trees and the variables, which go from part to part. One part: fn(variables, batch, key).
  The parts interleave, so that each has as many rows of every device as any other and no row moves.
  """
  if parts == 1:
    return fn(variables, batch, key)
  split = lambda a: a.reshape(a.shape[0] // parts, parts, *a.shape[1:]).swapaxes(0, 1)  # noqa: E731
  taken = jax.tree.map(split, batch)
  shapes, _ = jax.eval_shape(fn, variables, jax.tree.map(lambda a: a[0], taken), key)

  def body(carry: tuple[Tree, Tree], item: tuple[Batch, Array]) -> tuple[tuple[Tree, Tree], None]:
    variables, total = carry
    part, number = item
    found, variables = fn(variables, part, jax.random.fold_in(key, number))
    return (variables, jax.tree.map(jnp.add, total, found)), None

  zeros = jax.tree.map(lambda a: jnp.zeros(a.shape, a.dtype), shapes)
  (variables, total), _ = jax.lax.scan(body, (variables, zeros), (taken, jnp.arange(parts)))
  return jax.tree.map(lambda a: a / parts, total), variables
