"""What samplers share: the walk along a grid with guidance on and off, and the noise of each sample."""

import functools
import itertools
from collections.abc import Callable, Iterator
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from latents.diffusion.field import Field
from latents.errors import UserError
from latents.types import Array

Tree = Any


def check_steps(steps: int) -> None:
  """Raises UserError for fewer than one step."""
  if steps < 1:
    raise UserError(f"a sampler takes at least 1 step, not {steps}")


def runs(guided: np.ndarray) -> Iterator[tuple[int, int, bool]]:
  """[n] bool -> (first step, end, guided) of each run of equal steps, in order."""
  cuts = [0, *(np.flatnonzero(np.diff(guided.astype(int))) + 1).tolist(), len(guided)]
  yield from ((a, b, bool(guided[a])) for a, b in itertools.pairwise(cuts))


def walk(
  step: Callable[[Field, Tree, Tree], Tree], field: Field, carry: Tree, inputs: Tree, guided: np.ndarray | None
) -> Tree:
  """carry -> step(field, carry, input of the step) for all n steps in order -> carry.

  inputs: tree of [n,...]; guided [n] bool, None = nowhere. Each run of steps with guidance on, or off, is one
  `lax.scan`, and the carry goes on from run to run: a solver's history is not cut where guidance begins or ends.
  """
  count = len(jax.tree.leaves(inputs)[0])
  for a, b, on in runs(np.zeros(count, bool) if guided is None else guided) if count else ():
    part = jax.tree.map(lambda values, a=a, b=b: values[a:b], inputs)
    turn = functools.partial(step, field.turn(on))
    carry = jax.lax.scan(lambda carry, now, turn=turn: (turn(carry, now), None), carry, part)[0]
  return carry


def fresh_noise(keys: Array, number: Array, x: Array) -> Array:
  """Noise like x [B,...] for step `number` []: of sample i by fold_in(keys[i], number), whatever the batch."""
  draw = lambda key: jax.random.normal(jax.random.fold_in(key, number), x.shape[1:], x.dtype)  # noqa: E731
  return jax.vmap(draw)(keys)


def check_keys(keys: Array, name: str) -> Array:
  """The keys [B]. Raises UserError where there are none."""
  if keys is None:
    raise UserError(f"{name} draws noise at every step: it needs a key for each sample")
  return keys


def numbers(x: Array, *values: np.ndarray) -> tuple[Array, ...]:
  """Tables of float64 -> arrays of x's type."""
  return tuple(jnp.asarray(v, x.dtype) for v in values)
