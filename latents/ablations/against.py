"""A variant against a control."""

import dataclasses

from latents.ablations.base import Claim, Direction, Judgement, Table, beyond, difference


@dataclasses.dataclass(frozen=True, kw_only=True)
class Against(Claim):
  """`variant` is higher (or lower) than `control` in `column` by at least `least`, in the column's units."""

  variant: str
  control: str
  column: str
  direction: Direction
  least: float = 0.0

  def judge(self, table: Table) -> Judgement:
    """Shown: the whole interval of the paired differences goes that way by `least`; contradicted: the other way."""
    found = difference(table, self.variant, self.control, self.column)
    verdict, why = beyond(found, self.direction, self.least)
    return Judgement(verdict, (found,), why)

  def reads(self) -> tuple[tuple[str, ...], tuple[str, ...]]:
    """See `Claim`."""
    return (self.variant, self.control), (self.column,)
