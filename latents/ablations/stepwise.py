"""Each variant against the one before."""

import dataclasses
import itertools

from latents.ablations.base import Claim, Direction, Judgement, Table, beyond, difference


@dataclasses.dataclass(frozen=True, kw_only=True)
class Stepwise(Claim):
  """Along `order` each variant is higher (or lower) in `column` than the one before it, by at least `least`."""

  order: tuple[str, ...]
  column: str
  direction: Direction
  least: float = 0.0

  def judge(self, table: Table) -> Judgement:
    """Shown: every step is; contradicted: one step is."""
    pairs = list(itertools.pairwise(self.order))
    found = tuple(difference(table, after, before, self.column) for before, after in pairs)
    verdicts = [beyond(step, self.direction, self.least) for step in found]
    if wrong := [step.what for step, (verdict, _) in zip(found, verdicts, strict=True) if verdict == "contradicted"]:
      return Judgement("contradicted", found, f"the other way: {', '.join(wrong)}")
    if open_ := [(step.what, why) for step, (verdict, why) in zip(found, verdicts, strict=True) if verdict != "shown"]:
      return Judgement("not shown", found, f"{', '.join(what for what, _ in open_)}: {open_[0][1]}")
    return Judgement("shown", found)

  def reads(self) -> tuple[tuple[str, ...], tuple[str, ...]]:
    """See `Claim`."""
    return self.order, (self.column,)
