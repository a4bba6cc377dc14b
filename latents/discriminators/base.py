"""What a discriminator says of a signal, and the contract of those that look through a frozen network."""

from typing import Any, NamedTuple

import flax.linen as nn

from latents.types import Array

Tree = Any


class Verdict(NamedTuple):
  """logits: arrays [B,...] float32, larger where x looks real, one a scale or sub-network. features: of each of them
  its hidden layers [B,...], in order, for feature matching; () where there are none."""

  logits: tuple[Array, ...]
  features: tuple[tuple[Array, ...], ...] = ()


class Taught(nn.Module):
  """A discriminator that is called with `frozen=`: what `load` gave, an argument of the step and trained by nobody."""

  def load(self) -> Tree:
    """The frozen network's weights; UserError where they are missing."""
    raise TypeError(f"{type(self).__name__} gives no `load`")

  def abstract(self) -> Tree:
    """The tree of `load` as ShapeDtypeStructs; needs no file."""
    raise TypeError(f"{type(self).__name__} gives no `abstract`")
