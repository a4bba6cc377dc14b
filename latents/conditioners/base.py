"""The contract of a conditioner."""

import abc
import dataclasses
from typing import ClassVar

from latents.errors import UserError, nearest
from latents.types import Array, Batch, Cond


@dataclasses.dataclass(frozen=True)
class Conditioner(abc.ABC):
  """See the room's `__init__`. gives: names of the entries of its conditions."""

  gives: ClassVar[tuple[str, ...]] = ()

  @abc.abstractmethod
  def __call__(self, batch: Batch) -> Cond | None:
    """The entries of a batch ("label" [B] int32, ...) -> its condition; None where they say nothing. Jit-able."""

  def count(self, classes: int) -> int:
    """How many conditions can be asked for by number; classes: labels of the data."""
    return classes

  def words(self, names: tuple[str, ...]) -> tuple[str, ...]:
    """What each number is called; names: of the data's labels."""
    return names

  def number(self, word: str, names: tuple[str, ...]) -> int:
    """The number of a condition by its name. UserError with the nearest."""
    known = self.words(names)
    if word not in known:
      hint = nearest(word, known) or (f": one of {', '.join(known[:20])}{', ...' * (len(known) > 20)}" if known else "")
      raise UserError(f"there is no condition '{word}'{hint}")
    return known.index(word)

  def asked(self, numbers: Array) -> Cond | None:
    """[B] int32 numbers -> the condition that samples are drawn under."""
    return self({"label": numbers})
