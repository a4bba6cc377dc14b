"""What a variant measures lies in a range."""

import dataclasses

import numpy as np

from latents.ablations.base import Claim, Difference, Judgement, Table, unsure
from latents.evaluate.interval import mean_interval

LEVEL = 0.95


@dataclasses.dataclass(frozen=True, kw_only=True)
class Within(Claim):
  """`variant` is at least `low` and at most `high` in `column`: a number of its own, with no control."""

  variant: str
  column: str
  low: float
  high: float

  def judge(self, table: Table) -> Judgement:
    """Shown: every seed lies in the range; contradicted: the interval of the mean lies outside."""
    x = table.of(self.column, self.variant)
    x = x[np.isfinite(x)]
    ends = mean_interval(x, LEVEL)
    mean = float(x.mean()) if len(x) else None
    found = Difference(self.variant, self.column, mean, *(ends or (None, None)), len(x), LEVEL)
    if ends is None:
      return Judgement("not shown", (found,), unsure(len(x)))
    if self.low <= x.min() and x.max() <= self.high:
      return Judgement("shown", (found,))
    if ends[0] > self.high or ends[1] < self.low:
      return Judgement("contradicted", (found,))
    return Judgement("not shown", (found,), f"a seed lies outside: {x.min():.4g} to {x.max():.4g}")

  def reads(self) -> tuple[tuple[str, ...], tuple[str, ...]]:
    """See `Claim`."""
    return (self.variant,), (self.column,)
