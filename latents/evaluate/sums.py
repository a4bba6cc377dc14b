"""Sums that do not lose small values among many: what the accumulators of metrics are made of."""

from typing import Any

import jax.numpy as jnp
import numpy as np

from latents.types import Array

Tree = Any  # nested dicts of arrays


def zeros(*shape: int) -> dict[str, Array]:
  """A compensated sum of [*shape]: "high" + "low" is the value."""
  return {"high": jnp.zeros(shape, jnp.float32), "low": jnp.zeros(shape, jnp.float32)}


def add(acc: dict[str, Array], value: Array) -> dict[str, Array]:
  """acc + value with the rounding error kept in "low" (Neumaier), as 50,000 float32 adds need."""
  high, low = acc["high"], acc["low"]
  total = high + value
  first = jnp.abs(high) >= jnp.abs(value)
  lost = (jnp.where(first, high, value) - total) + jnp.where(first, value, high)
  return {"high": total, "low": low + lost}


def total(acc: dict[str, Array]) -> np.ndarray:
  """The value of a compensated sum in float64."""
  return np.asarray(acc["high"], np.float64) + np.asarray(acc["low"], np.float64)


def sum_kept(values: Array, mask: Array) -> Array:
  """values [B,...], mask [B] bool -> [...]: the sum over the batch without padding (which may be nan)."""
  keep = mask.reshape(mask.shape + (1,) * (values.ndim - 1))
  return jnp.where(keep, values.astype(jnp.float32), 0.0).sum(0)
