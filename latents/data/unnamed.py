"""Pictures that are named later: of a model whose training data are elsewhere, or nobody's business."""

import dataclasses
from collections.abc import Iterable

from latents.data.folder import Folder
from latents.data.source import Records, Split
from latents.errors import UserError


@dataclasses.dataclass(frozen=True)
class Unnamed(Folder):
  """A `Folder` whose path may stay open until something is measured: nothing here was learned from it.

  So any folder will do, with one identity for all, and its labels are not read.
  """

  @property
  def names(self) -> tuple[str, ...]:
    """None."""
    return ()

  @property
  def note(self) -> str:
    """As `Source.note`."""
    return super().note if self.path else ""

  def contents(self) -> Iterable[str]:
    """Nothing that makes one run another."""
    return ()

  def records(self, split: Split) -> Records:
    """As `Source.records`. UserError while no folder is named."""
    if not self.path:
      raise UserError("the data of this run are not named yet: say --data FOLDER, a folder of pictures")
    return super().records(split)

  def read(self, names: list[str], label: list[int | None], i: int) -> dict:
    """As `Folder.read`, without the label."""
    return super().read(names, [None] * len(names), i)
