"""What a discriminator says of a signal."""

from typing import NamedTuple

from latents.types import Array


class Verdict(NamedTuple):
  """logits: arrays [B,...] float32, larger where x looks real, one a scale or sub-network. features: of each of them
  its hidden layers [B,...], in order, for feature matching; () where there are none."""

  logits: tuple[Array, ...]
  features: tuple[tuple[Array, ...], ...] = ()
