"""`latents list`: every experiment file with its paper, and what of it has been run here."""

import ast
import json
from pathlib import Path

from latents.command.overrides import folders
from latents.errors import UserError


def table(runs: Path) -> str:
  """Name, first line of the docstring, state of its newest run in `runs`; one line an experiment."""
  rows = [("EXPERIMENT", "STATE", "WHAT")]
  for folder in folders():
    for file in sorted(folder.glob("**/*.py")):
      if file.name != "__init__.py":
        rows.append((str(file.relative_to(folder.parent)), _state(runs, file.stem), first_line(file)))
  if len(rows) == 1:
    raise UserError("no experiment files found: run from the project's folder")
  widths = [max(len(row[i]) for row in rows) for i in range(2)]
  return "\n".join(f"{a:{widths[0]}}  {b:{widths[1]}}  {c}" for a, b, c in rows)


def first_line(file: Path) -> str:
  """The first line of the file's docstring; the file is parsed, not run."""
  try:
    doc = ast.get_docstring(ast.parse(file.read_text()))
  except (SyntaxError, UnicodeDecodeError) as error:
    return f"(cannot be read: {error})"
  return (doc or "(no docstring)").splitlines()[0]


def _state(runs: Path, name: str) -> str:
  """'-', or how far the run of this name in `runs` is."""
  folder = runs / name
  if (folder / "verdict.json").is_file():
    return "judged"
  if not (folder / "experiment.json").is_file():
    return "-"
  if (folder / "report.html").is_file():
    return "done"
  try:
    declared = json.loads((folder / "experiment.json").read_text())
    last = (folder / "metrics.jsonl").read_text().splitlines()[-1]
    line = json.loads(last)
    steps = declared[f"stage{line['stage']}"]["steps"]
    return f"stage {line['stage']} at {line['step']}/{steps}"
  except (OSError, ValueError, KeyError, IndexError, TypeError):
    return "started"
