"""Named streams of random numbers."""

import operator
from typing import Any

import jax
import jax.numpy as jnp

from latents.errors import UserError
from latents.types import Array

STREAMS = ("encoder", "bottleneck", "decoder", "prior", "dropout")


def streams(key: Array) -> dict[str, Array]:
  """One key -> one key for each named random stream of the models."""
  return dict(zip(STREAMS, jax.random.split(key, len(STREAMS)), strict=True))


def sample_keys(key: Array, batch: int) -> Array:
  """[batch] keys: sample i depends on (key, i) alone, whatever the size of the batch or its sharding."""
  return jax.vmap(lambda i: jax.random.fold_in(key, i))(jnp.arange(batch))


def check_seed(seed: Any, name: str = "seed") -> int:
  """The seed as an int. UserError where it is no whole number from 0 to 2^32 - 1: jax's keys hold no more bits."""
  try:
    number = -1 if isinstance(seed, bool) else operator.index(seed)
  except TypeError:
    number = -1
  if not 0 <= number < 2**32:
    raise UserError(f"{name} is {seed!r}: it must be a whole number from 0 to {2**32 - 1}")
  return number
