"""One order follows another."""

import dataclasses

import numpy as np

from latents.ablations.base import SIGN, Claim, Difference, Direction, Judgement, Table, unsure
from latents.evaluate.interval import interval, spearman


@dataclasses.dataclass(frozen=True, kw_only=True)
class Ranks(Claim):
  """Among the variants of `order` the ranks of `column` go with those of `by` (a column; "": their place in `order`).

  direction: "higher": upwards together; "lower": against each other. least: the smallest Spearman correlation that
  counts, in (0,1].
  """

  order: tuple[str, ...]
  column: str
  by: str = ""
  direction: Direction = "higher"
  least: float = 0.5

  def judge(self, table: Table) -> Judgement:
    """Of the means over seeds; the interval is over resampled seeds, the same for all variants."""
    y = np.stack([table.of(self.column, name) for name in self.order])  # [variants, seeds]
    place = np.arange(len(self.order), dtype=np.float64)[:, None] + np.zeros_like(y)
    x = np.stack([table.of(self.by, name) for name in self.order]) if self.by else place
    whole = np.isfinite(x).all(0) & np.isfinite(y).all(0)
    x, y, n = x[:, whole], y[:, whole], int(whole.sum())

    def statistic(rows: np.ndarray) -> float:
      return spearman(x[:, rows].mean(1), y[:, rows].mean(1))

    low, high = interval(n, statistic) or (None, None)
    what = f"rank correlation with {self.by or 'the order'}"
    found = Difference(what, self.column, statistic(np.arange(n)) if n else None, low, high, n, 0.95)
    if low is None or high is None:
      return Judgement("not shown", (found,), unsure(n))
    low, high = sorted((SIGN[self.direction] * low, SIGN[self.direction] * high))
    if low >= self.least:
      return Judgement("shown", (found,))
    if high <= -self.least:
      return Judgement("contradicted", (found,))
    return Judgement("not shown", (found,), "the interval does not lie beyond the smallest correlation that counts")

  def reads(self) -> tuple[tuple[str, ...], tuple[str, ...]]:
    """See `Claim`."""
    return self.order, tuple(c for c in (self.column, self.by) if c)
