"""`latents list`: every experiment file by chapter, with its paper, and what of it has been run here."""

import ast
import contextlib
import json
import re
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import NamedTuple

from latents.command.overrides import folders
from latents.errors import Missing, UserError


class Chapter(NamedTuple):
  """A folder of experiments. name: its path below `experiments/`, "" for that itself; title: the first line of the
  docstring of its `__init__.py`, without the full stop; files: its experiments in the order of their names."""

  name: str
  title: str
  files: list[Path]


def chapters(folder: Path) -> list[Chapter]:
  """The chapters of a folder of experiments, in the order of their names; those without an experiment too."""
  places = [folder, *sorted(p for p in folder.glob("**/") if p != folder and any(p.glob("*.py")))]
  found = []
  for place in places:
    files = sorted(f for f in place.glob("*.py") if f.name != "__init__.py")
    title = first_line(place / "__init__.py") if (place / "__init__.py").is_file() else ""
    name = "" if place == folder else place.relative_to(folder).as_posix()
    found.append(Chapter(name, title.rstrip("."), files))
  return found


def table(runs: Path) -> str:
  """Every experiment's bare name, the state of its newest run in `runs`, and the first line of its docstring, a line
  each, below the names of their chapters; then the other runs that are there, of one's own files say."""
  rows: list[tuple[str, ...]] = [("EXPERIMENT", "STATE", "WHAT")]
  there = _runs(runs)
  for folder in folders():
    for chapter in chapters(folder):
      if chapter.files:
        rows.append((f"{folder.name}/{chapter.name}: {chapter.title}" if chapter.name else f"{folder}:",))
        rows += [(f"  {file.stem}", _newest(there, file.stem), first_line(file)) for file in chapter.files]
  known = {row[0].strip() for row in rows}
  others = [(f"  {run.name}", state, f"a run of {name}") for run, name, state in there if name not in known]
  rows += [(f"other runs in {runs}:",), *others] if others else []
  if len(rows) == 1:
    raise UserError("no experiment files found: run from the project's folder")
  widths = [max((len(row[i]) for row in rows if len(row) == 3), default=0) for i in range(2)]
  return "\n".join(f"{r[0]:{widths[0]}}  {r[1]:{widths[1]}}  {r[2]}" if len(r) == 3 else r[0] for r in rows)


def _runs(runs: Path) -> list[tuple[Path, str, str]]:
  """(folder, the experiment's name, state) of every run, the newest first."""
  found = []
  for folder in runs.glob("*/") if runs.is_dir() else ():
    if (state := _state(folder)) == "-":
      continue
    try:
      name = json.loads((folder / "experiment.json").read_text())["name"]
    except (OSError, ValueError, KeyError, TypeError):
      name = folder.name
    found.append((folder.stat().st_mtime, folder, str(name), state))
  return [found[1:] for found in sorted(found, reverse=True)]


def _newest(there: list[tuple[Path, str, str]], name: str) -> str:
  """The state of the newest run of an experiment, with its folder where that has another name; '-' if there is none."""
  for folder, experiment, state in there:
    if name in (experiment, folder.name):
      return state if folder.name == name else f"{state} ({folder.name})"
  return "-"


def docstring(file: Path) -> str:
  """The docstring of a file that is parsed, not run."""
  try:
    doc = ast.get_docstring(ast.parse(file.read_text()))
  except (SyntaxError, UnicodeDecodeError) as error:
    return f"(cannot be read: {error})"
  return doc or "(no docstring)"


def said(doc: str, word: str) -> str:
  """What a docstring says behind "WORD: " at the beginning of a line, to the end of that line; "" if nothing."""
  found = re.search(rf"^{word}: (.+)$", doc, re.MULTILINE)
  return found[1].strip() if found else ""


@contextlib.contextmanager
def data_of(file: Path, flags: Sequence[str]) -> Iterator[None]:
  """What an experiment file says of where its data come from, behind the error that they are not there; unless the
  user has said where they are."""
  try:
    yield
  except Missing as error:
    where = said(docstring(file), "Data")
    if not where or any(flag.split("=")[0] == "--data" for flag in flags):
      raise
    raise Missing(f"{error} ({where})") from None


def first_line(file: Path) -> str:
  """The first line of the file's docstring."""
  return docstring(file).splitlines()[0]


def _state(folder: Path) -> str:
  """'-', or how far the run in a folder is."""
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
