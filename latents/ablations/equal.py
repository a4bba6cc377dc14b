"""Two variants do the same, within a margin."""

import dataclasses

from latents.ablations.base import Claim, Judgement, Table, difference, unsure

LEVEL = 0.9  # two one-sided tests at 5 % are the central interval of 90 % (Schuirmann 1987)


@dataclasses.dataclass(frozen=True, kw_only=True)
class Equal(Claim):
  """`variant` and `control` differ in `column` by less than `margin`."""

  variant: str
  control: str
  column: str
  margin: float

  def judge(self, table: Table) -> Judgement:
    """Shown: the interval of the paired differences lies within the margin; contradicted: it lies outside."""
    found = difference(table, self.variant, self.control, self.column, LEVEL)
    if found.low is None or found.high is None:
      return Judgement("not shown", (found,), unsure(found.seeds))
    if -self.margin < found.low and found.high < self.margin:
      return Judgement("shown", (found,))
    if found.low >= self.margin or found.high <= -self.margin:
      return Judgement("contradicted", (found,))
    return Judgement("not shown", (found,), "the interval crosses the margin")

  def reads(self) -> tuple[tuple[str, ...], tuple[str, ...]]:
    """See `Claim`."""
    return (self.variant, self.control), (self.column,)
