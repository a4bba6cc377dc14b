"""What rises over the steps of a training."""

from typing import Literal

import jax.numpy as jnp

from latents.types import Array

Shape = Literal["linear", "cosine"]


def risen(passed: Array, over: int, shape: Shape = "cosine") -> Array:
  """passed [] steps -> [] float32: from 0 to 1 within `over` of them, in half a cosine or on a line; 1 where over is
  0."""
  share = jnp.clip(jnp.asarray(passed, jnp.float32) / over, 0.0, 1.0) if over > 0 else jnp.ones(())
  return share if shape == "linear" else 0.5 * (1.0 - jnp.cos(jnp.pi * share))
