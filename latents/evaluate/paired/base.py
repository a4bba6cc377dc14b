"""The contract of a paired metric, and the mean over examples that most of them are."""

import abc
import dataclasses
from typing import ClassVar

import jax.numpy as jnp

from latents.evaluate.sums import Tree, add, sum_kept, total, zeros
from latents.types import Array


@dataclasses.dataclass(frozen=True)
class Metric(abc.ABC):
  """Judges reconstructions: `update` inside jit over batches, then `result` on the host.

  Accumulators hold sums only: those of shards and hosts are added leaf by leaf. kinds: the signals that
  the metric is defined for.
  """

  judges: ClassVar[str] = "reconstructions"
  kinds: ClassVar[tuple[str, ...]] = ("image", "video", "audio")

  def fits(self, kind: str, shape: tuple[int, ...]) -> bool:
    """Whether it is defined for signals of this kind and shape [*S,C]."""
    return kind in self.kinds

  @abc.abstractmethod
  def init(self) -> Tree:
    """An accumulator of nothing: a tree of float32 zeros."""

  @abc.abstractmethod
  def update(self, acc: Tree, x: Array, x_hat: Array, mask: Array, *, aux: Tree = None) -> Tree:
    """x, x_hat [B,*S,C] in [-1,1]; mask [B] bool, False = padding; aux: what `load` gave. Jit-able."""

  @abc.abstractmethod
  def result(self, acc: Tree) -> dict[str, float]:
    """{name: value} in float64; nan where nothing was counted."""

  def load(self) -> Tree:
    """Parameters of a frozen network, an argument of `update`; None for most."""
    return None


@dataclasses.dataclass(frozen=True)
class MeanMetric(Metric):
  """A metric that is one number per sample, averaged over the samples."""

  @property
  @abc.abstractmethod
  def name(self) -> str:
    """The key of the result."""

  @abc.abstractmethod
  def each(self, x: Array, x_hat: Array, aux: Tree) -> Array:
    """[B,*S,C] twice in [-1,1] -> [B] float32."""

  def init(self) -> Tree:
    """Sums of values and of samples."""
    return {"sum": zeros(), "count": zeros()}

  def update(self, acc: Tree, x: Array, x_hat: Array, mask: Array, *, aux: Tree = None) -> Tree:
    """See `Metric`."""
    values = self.each(x.astype(jnp.float32), x_hat.astype(jnp.float32), aux)
    count = mask.astype(jnp.float32).sum()
    return {"sum": add(acc["sum"], sum_kept(values, mask)), "count": add(acc["count"], count)}

  def result(self, acc: Tree) -> dict[str, float]:
    """{name: mean over samples}."""
    count = total(acc["count"])
    return {self.name: float(total(acc["sum"]) / count) if count else float("nan")}
