"""The label of an example, as its data give it."""

import dataclasses
from typing import ClassVar

from latents.conditioners.base import Conditioner
from latents.types import Batch, Cond


@dataclasses.dataclass(frozen=True)
class Labels(Conditioner):
  """{"label": [B] int32}; None for data without labels."""

  gives: ClassVar[tuple[str, ...]] = ("label",)

  def __call__(self, batch: Batch) -> Cond | None:
    """See the class."""
    return {"label": batch["label"]} if "label" in batch else None
