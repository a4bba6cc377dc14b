"""The contract of a metric of samples: two sets, as some features see them, and a note on how they came."""

import abc
import dataclasses
from typing import ClassVar, NamedTuple

import numpy as np

from latents.data import choice
from latents.evaluate.sums import Tree
from latents.types import Array


class Measured(NamedTuple):
  """A value with the note without which it means nothing."""

  value: float
  protocol: str


class Examples(NamedTuple):
  """x: [N,...] float64, what the features gave for each of a set. label: int32 [N] (asked for, if they are samples), or
  None. name: what they are, for the note: "Digits held-out"."""

  x: np.ndarray
  label: np.ndarray | None = None
  name: str = ""

  def some(self, number: int) -> "Examples":
    """At most so many of them, by a fixed `choice`: sets are often sorted by class."""
    rows = choice(len(self.x), number)
    return self._replace(x=self.x[rows], label=None if self.label is None else np.asarray(self.label)[rows])


def level(real: Examples, fake: Examples) -> tuple[Examples, Examples]:
  """Both sets cut to the smaller number by the same choice: for what is biased in the number of examples."""
  number = min(len(real.x), len(fake.x))
  return real.some(number), fake.some(number)


@dataclasses.dataclass(frozen=True)
class Features(abc.ABC):
  """What a metric of samples sees of a signal.

  name: the end of the key of a value ("" where the features are the plain choice). kinds: the signals that they are
  for. jitted: `__call__` is traced and runs on the devices; else it takes and gives numpy arrays.
  """

  name: ClassVar[str] = ""
  kinds: ClassVar[tuple[str, ...]] = ("image", "video", "audio")
  jitted: ClassVar[bool] = True

  @abc.abstractmethod
  def __call__(self, params: Tree, x: Array) -> Array:
    """params (what `load` gave), x [B,*S,C] in [-1,1] -> [B,...]."""

  @property
  @abc.abstractmethod
  def note(self) -> str:
    """What was done to a signal, for the protocol."""

  def key(self, measure: str) -> str:
    """A measure's name with that of the features: "frechet_efficientnet_lite0"."""
    return f"{measure}_{self.name}" if self.name else measure

  def against(self, real: Examples, fake: Examples, used: int | None = None) -> str:
    """The note of a distance on these features, with the sizes of both sets; used: how many a side were compared, where
    that is less than a side has."""
    m, n = len(real.x), len(fake.x)
    sizes = f"n={n}" if m == n else f"n={n} and {m}" if used is None else f"n={used} a side (of {n} and {m})"
    return f"{self.note}, {sizes}, against {real.name}"

  def load(self) -> Tree:
    """Parameters of a frozen network; None for most. UserError that says what is missing."""
    return None


@dataclasses.dataclass(frozen=True)
class SampleMetric(abc.ABC):
  """Compares samples with real examples, on the host.

  features: what it sees of a signal. training: how many training examples it wants beside the two sets (0 = none).
  """

  features: Features
  judges: ClassVar[str] = "samples"
  training: ClassVar[int] = 0

  def fits(self, kind: str, shape: tuple[int, ...], classes: int) -> bool:
    """Whether it is defined for signals of this kind and shape [*S,C], with so many labels (0 = none)."""
    return kind in self.features.kinds

  @abc.abstractmethod
  def compare(self, real: Examples, fake: Examples, train: Examples | None) -> dict[str, Measured]:
    """Held-out examples, samples and (where `training` asks for them) training examples -> values by name."""

  def load(self) -> Tree:
    """Parameters of the features' network."""
    return self.features.load()
