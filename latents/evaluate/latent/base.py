"""The contract of a latent metric: what is known of a run's latents before one is seen, and sums over the seen ones."""

import abc
import dataclasses
from typing import ClassVar

import numpy as np
from flax import struct

from latents.evaluate.sums import Tree
from latents.types import Array, Latent


@dataclasses.dataclass(frozen=True)
class Layout:
  """What a run's latents are like.

  signal: [*S,C] of an example. latent: abstract Latent of one example, without the batch axis. vocab: the number of
  codes of each group or level, () for a continuous latent. gaussian: there is a posterior with a mean and a deviation.
  std: [D] of z in the decoder's units, by which z was divided.
  """

  signal: tuple[int, ...]
  latent: Latent
  vocab: tuple[int, ...] = ()
  gaussian: bool = False
  std: np.ndarray | None = None

  @property
  def shape(self) -> tuple[int, ...]:
    """[*s(,G)] of the codes, else [*s,D]: what is counted in the tensor size reduction."""
    return (self.latent.z if self.latent.codes is None else self.latent.codes).shape


class Held(struct.PyTreeNode):
  """What stands beside a batch of latents.

  x: [B,*S,C] in [-1,1], the held-out examples. mask: [B] bool, False = padding (which may hold anything).
  posterior: (mean, std) [B,*s,D] in the decoder's units, None where `Layout.gaussian` is False.
  """

  x: Array
  mask: Array
  posterior: tuple[Array, Array] | None = None


@dataclasses.dataclass(frozen=True)
class LatentMetric(abc.ABC):
  """Judges latents of held-out examples: `update` inside jit over batches, then `result` on the host.

  Accumulators hold sums only, as those of a paired metric.
  """

  judges: ClassVar[str] = "latents"

  def fits(self, layout: Layout) -> bool:
    """Whether it is defined for such latents."""
    return layout.latent.z is not None

  @abc.abstractmethod
  def init(self, layout: Layout) -> Tree:
    """An accumulator of nothing; {} where `layout` says it all and no latent need be seen."""

  @abc.abstractmethod
  def update(self, acc: Tree, latent: Latent, held: Held) -> Tree:
    """latent: normalised, the mode; z [B,*s,D], codes [B,*s(,G)], mask [B,*s] of tokens or None. Jit-able."""

  @abc.abstractmethod
  def result(self, acc: Tree, layout: Layout) -> dict[str, float | list[float]]:
    """{name: value} in float64; nan where nothing was counted."""
