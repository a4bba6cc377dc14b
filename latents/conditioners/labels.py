"""The label of an example, as its data give it."""

import dataclasses
from typing import ClassVar

from latents.conditioners.base import Conditioner
from latents.types import Batch, Cond, later


@dataclasses.dataclass(frozen=True)
class Labels(Conditioner):
  """{"label": [B] int32}; None for data without labels.

  classes: labels that can be asked for, of a prior that was trained elsewhere; 0 = those of the data.
  """

  classes: int = later(0)

  gives: ClassVar[tuple[str, ...]] = ("label",)

  def __call__(self, batch: Batch) -> Cond | None:
    """See the class."""
    return {"label": batch["label"]} if "label" in batch else None

  def count(self, classes: int) -> int:
    """As `Conditioner.count`."""
    return self.classes or classes
