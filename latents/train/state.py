"""What training carries from step to step: plain nested dicts of arrays."""

import functools
from collections.abc import Callable, Iterable
from typing import Any

import jax
import jax.numpy as jnp
import optax
from flax import struct, traverse_util

from latents.optim import Optimizer
from latents.types import Array

Tree = Any


class State(struct.PyTreeNode):
  """step [] int32 counts updates done; all randomness is fold_in(key(seed), step).

  params, opt: the same top-level keys ({"ae", "disc"} or {"prior"}), float32. ema: average of
  the variables of the stage's model: {"params": ..., and the collections beside them}. extra: state
  without a gradient: {"variables": linen collections such as the EMA codebook, "skipped": [] int32
  updates skipped in a row, "skipped_total": []}. averages: others of the same variables by name, as declared.
  """

  step: Array
  params: dict[str, Tree]
  opt: dict[str, Tree]
  ema: Tree
  extra: dict[str, Tree]
  averages: dict[str, Tree] = struct.field(default_factory=dict)


def fresh(
  params: dict[str, Tree], opt: dict[str, Tree], averaged: str, variables: dict[str, Tree], averages: Iterable[str] = ()
) -> State:
  """The state at step 0; each average starts as a copy of the parameters."""
  zero = jnp.zeros((), jnp.int32)
  copy = lambda: jax.tree.map(jnp.copy, {"params": params[averaged], **variables})  # noqa: E731
  return State(
    step=zero,
    params=params,
    opt=opt,
    ema=copy(),
    extra={"variables": variables, "losses": {}, "skipped": zero, "skipped_total": zero},
    averages={name: copy() for name in averages},
  )


def average(ema: Tree, params: Tree, variables: Tree, rate: float, step: Array) -> Tree:
  """ema <- r ema + (1 - r) now, r = min(rate, (1 + step) / (10 + step)): no bias to the first steps.

  Codebooks and the like are averaged with the parameters that were trained beside them; what is not a
  float is taken as it is. rate 0: no average.
  """
  return average_by(ema, params, variables, jnp.minimum(rate, (1.0 + step) / (10.0 + step)) if rate else 0.0)


def average_by(ema: Tree, params: Tree, variables: Tree, r: Array | float) -> Tree:
  """As `average`, where r [] stays of the average."""
  now = {"params": params, **variables}
  return jax.tree.map(lambda e, p: r * e + (1.0 - r) * p if jnp.issubdtype(p.dtype, jnp.floating) else p, ema, now)


def descend(optimizer: Optimizer, steps: int, grads: Tree, opt: Tree, params: Tree) -> tuple[Tree, Tree]:
  """One update: (params, opt)."""
  updates, opt = optimizer.make(steps).update(grads, opt, params)
  return optimizer.project(optax.apply_updates(params, updates)), opt


def guard(finite: Array, move: Callable[..., State], old: State, *given: Tree) -> State:
  """move(old, *given) where all gradients were finite, else `old`; one step on in any case, with the skip counted.

  On a CPU a conditional, inside which the state is updated in place; elsewhere a choice between the two, for which no
  device waits.
  """
  ways = {"cpu": functools.partial(_either, move), "default": functools.partial(_chosen, move)}
  kept = jax.lax.platform_dependent(finite, old, *given, **ways).replace(step=old.step + 1)
  skipped = jnp.where(finite, 0, old.extra["skipped"] + 1)
  total = old.extra["skipped_total"] + jnp.where(finite, 0, 1)
  return kept.replace(extra={**kept.extra, "skipped": skipped, "skipped_total": total})


def _either(move: Callable[..., State], finite: Array, old: State, *given: Tree) -> State:
  return jax.lax.cond(finite, move, lambda old, *_: old, old, *given)


def _chosen(move: Callable[..., State], finite: Array, old: State, *given: Tree) -> State:
  return jax.tree.map(lambda a, b: jnp.where(finite, a, b), move(old, *given), old)


def flatten(tree: Tree) -> dict[str, Array]:
  """Any pytree -> {"path/of/leaf": array}; names do not depend on optax's or linen's own types."""
  leaves, _ = jax.tree_util.tree_flatten_with_path(tree)
  return {"/".join(_word(k) for k in path): leaf for path, leaf in leaves}


def unflatten(tree: Tree, flat: dict[str, Array]) -> Tree:
  """The structure of `tree` with the leaves of `flat`; KeyError if one is missing."""
  leaves, structure = jax.tree_util.tree_flatten_with_path(tree)
  return structure.unflatten([flat["/".join(_word(k) for k in path)] for path, _ in leaves])


def _word(key: Any) -> str:
  for attribute in ("key", "name", "idx"):
    if hasattr(key, attribute):
      return str(getattr(key, attribute))
  return str(key)


def nest(flat: dict[str, Array]) -> dict[str, Tree]:
  """{"a/b": x} -> {"a": {"b": x}}, for trees of plain dicts."""
  return traverse_util.unflatten_dict(flat, sep="/")
