"""The contract of claims: a sentence, and a verdict that is a pure function of the stored table."""

import abc
import dataclasses
from collections.abc import Mapping
from typing import Any, Literal

import numpy as np

from latents.declare import from_json, to_json
from latents.evaluate.interval import mean_interval

Verdict = Literal["shown", "not shown", "contradicted"]
Direction = Literal["higher", "lower"]
SIGN = {"higher": 1.0, "lower": -1.0}


@dataclasses.dataclass(frozen=True)
class Table:
  """What was measured: column -> variant -> one number a seed (None: not measured), in the order of `seeds`."""

  seeds: tuple[int, ...]
  values: Mapping[str, Mapping[str, tuple[float | None, ...]]]

  def of(self, column: str, variant: str) -> np.ndarray:
    """float [seeds], NaN where nothing was measured."""
    found = self.values.get(column, {}).get(variant, (None,) * len(self.seeds))
    return np.array([np.nan if v is None else v for v in found], np.float64)


@dataclasses.dataclass(frozen=True)
class Difference:
  """What one comparison gave. mean: over the seeds that both sides have; low, high: its interval, None without one."""

  what: str
  column: str
  mean: float | None
  low: float | None
  high: float | None
  seeds: int
  level: float


@dataclasses.dataclass(frozen=True)
class Judgement:
  """The verdict on a claim, the differences that it rests on, and why where that is not in them."""

  verdict: Verdict
  differences: tuple[Difference, ...]
  why: str = ""


@dataclasses.dataclass(frozen=True, kw_only=True)
class Claim(abc.ABC):
  """One sentence that a paper says of its variants."""

  sentence: str

  @abc.abstractmethod
  def judge(self, table: Table) -> Judgement:
    """Judge it by the table alone."""

  @abc.abstractmethod
  def reads(self) -> tuple[tuple[str, ...], tuple[str, ...]]:
    """(variants, columns) that it speaks of."""


def difference(table: Table, variant: str, control: str, column: str, level: float = 0.95) -> Difference:
  """variant - control in a column, paired by seed."""
  paired = table.of(column, variant) - table.of(column, control)
  paired = paired[np.isfinite(paired)]
  mean = float(paired.mean()) if len(paired) else None
  low, high = mean_interval(paired, level) or (None, None)
  return Difference(f"{variant} - {control}", column, mean, low, high, len(paired), level)


def beyond(found: Difference, direction: Direction, least: float) -> tuple[Verdict, str]:
  """Whether a difference goes in a direction by what counts: the whole interval at or beyond `least` (and not at 0).
  Contradicted: it goes the other way by as much. Neither: not shown, and why."""
  if found.low is None or found.high is None:
    return "not shown", unsure(found.seeds)
  low, high = sorted((SIGN[direction] * found.low, SIGN[direction] * found.high))
  if low >= least and low > 0:
    return "shown", ""
  if high <= -least and high < 0:
    return "contradicted", ""
  return "not shown", "the interval does not lie beyond the smallest difference that counts"


def unsure(seeds: int) -> str:
  """Why there is no interval."""
  return "one seed: there is no interval" if seeds == 1 else "not measured"


def judge(claims: tuple[Claim, ...], table: Table) -> list[dict[str, Any]]:
  """The JSON of verdict.json: a claim's own JSON, its verdict, and the numbers behind it."""
  made = []
  for claim in claims:
    found = claim.judge(table)
    differences = [dataclasses.asdict(d) for d in found.differences]
    made.append({"claim": to_json(claim), "verdict": found.verdict, "why": found.why, "differences": differences})
  return made


def read_table(stored: Mapping[str, Any]) -> tuple[Table, tuple[Claim, ...]]:
  """The table and the claims of a stored table.json."""
  values = {c: {v: tuple(row) for v, row in rows.items()} for c, rows in stored["values"].items()}
  return Table(tuple(stored["seeds"]), values), tuple(from_json(c) for c in stored["claims"])
