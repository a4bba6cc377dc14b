"""The scores of a run as a short table for the terminal."""

from pathlib import Path

from latents.report.run import read_run
from latents.report.scores import ARROWS, compare, describe, value


def summary(folder: Path) -> str:
  """A line a score that says how good the run is: the ranked ones, and the prior's loss. "" where none was measured."""
  columns, _ = compare([read_run(folder)])
  rows, before = [], ""
  for column in columns:
    score = describe(column.key)
    if (score.best not in ARROWS and column.group != "Prior") or column.values[0] is None:
      continue
    group, before = ("" if column.group == before else column.group), column.group
    unit = f" {score.unit}" if score.unit else ""
    arrow = f"  {ARROWS[score.best][0]}" if score.best in ARROWS else ""
    rows.append((group, score.label, f"{value(column.key, column.values[0])}{unit}{arrow}"))
  widths = [max((len(row[i]) for row in rows), default=0) for i in range(2)]
  return "\n".join(f"{a:{widths[0]}}  {b:{widths[1]}}  {c}" for a, b, c in rows)
