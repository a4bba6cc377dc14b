"""The contract of a paired metric, and sums that do not lose small values among many."""

import abc
import dataclasses
from typing import Any, ClassVar

import jax.numpy as jnp
import numpy as np

from latents.types import Array

Tree = Any


@dataclasses.dataclass(frozen=True)
class Metric(abc.ABC):
  """Judges reconstructions: `update` inside jit over batches, then `result` on the host.

  Accumulators hold sums only: those of shards and hosts are added leaf by leaf. kinds: the signals that
  the metric is defined for.
  """

  kinds: ClassVar[tuple[str, ...]] = ("image", "video", "audio")

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
