"""Named streams of random numbers."""

import jax

from latents.types import Array

STREAMS = ("encoder", "bottleneck", "decoder", "prior", "dropout")


def streams(key: Array) -> dict[str, Array]:
  """One key -> one key for each named random stream of the models."""
  return dict(zip(STREAMS, jax.random.split(key, len(STREAMS)), strict=True))
