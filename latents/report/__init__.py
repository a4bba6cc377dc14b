"""A run (or many) -> one self-contained HTML page and a Markdown table, from the files of the folders alone.

The page loads nothing from anywhere and needs no jax. Folders are untrusted: what is broken is one
`latents.errors.UserError`, what is missing is said on the page.
"""

import os
import tempfile
from collections.abc import Sequence
from pathlib import Path

from latents.errors import UserError
from latents.media.mark import TABLE
from latents.report.page import document
from latents.report.run import Run, read_run
from latents.report.scores import ARROWS, compare, describe, titles, value

__all__ = ["markdown_table", "report", "write_report", "write_table"]


def report(folders: Sequence[Path]) -> str:
  """Run folders -> the HTML page; several runs get a comparison on top.

  UserError if a folder is no run's or one of its files is broken.
  """
  return document(_read(folders))


def write_report(folders: Sequence[Path], out: Path) -> None:
  """`report` as a file that appears whole or not at all. UserError also if it cannot be written."""
  _write(report(folders), Path(out))


def write_table(folders: Sequence[Path], out: Path) -> None:
  """`markdown_table` as a file, likewise."""
  _write(markdown_table(folders) + TABLE, Path(out))


def _write(text: str, out: Path) -> None:
  try:
    out.parent.mkdir(parents=True, exist_ok=True)
    handle, temporary = tempfile.mkstemp(suffix=out.suffix, dir=out.parent)
  except OSError as error:
    raise UserError(f"cannot write {out}: {error.strerror}") from None
  try:
    # names of files and labels may be bytes that are no text
    with os.fdopen(handle, "w", encoding="utf-8", errors="backslashreplace") as file:
      file.write(text)
    os.chmod(temporary, 0o644)  # mkstemp gives files that only their owner may read
    os.replace(temporary, out)
  except OSError as error:
    Path(temporary).unlink(missing_ok=True)
    raise UserError(f"cannot write {out}: {error.strerror}") from None


def markdown_table(folders: Sequence[Path]) -> str:
  """The comparison as a Markdown table: runs as rows, scores as columns, the best in bold."""
  runs = _read(folders)
  columns, notes = compare(runs)
  heads = ["Run"]
  for column in columns:
    score = describe(column.key)
    arrow = f" {ARROWS[score.best][0]}" if score.best in ARROWS else ""
    heads.append(f"{score.label}{f' ({score.unit})' if score.unit else ''}{arrow}")
  lines = [heads, ["---"] + ["---:"] * len(columns)]
  for row, name in enumerate(titles(runs)):
    cells = [value(c.key, c.values[row]) for c in columns]
    lines.append(
      [
        _mark(name),
        *(f"**{_mark(t)}**" if row in c.best else _mark(t) for t, c in zip(cells, columns, strict=True)),
      ]
    )
  lines[0] = [_mark(h) for h in heads]
  table = "".join("| " + " | ".join(line) + " |\n" for line in lines)
  return table + "".join(f"\n{note}\n" for note in notes)


def _mark(text: str) -> str:
  """Text as a cell of Markdown: one line, nothing in it is markup."""
  line = " ".join(text.split())
  for sign in "\\`*_[]|":
    line = line.replace(sign, "\\" + sign)
  return line.replace("&", "&amp;").replace("<", "&lt;").replace(">", "&gt;")


def _read(folders: Sequence[Path]) -> list[Run]:
  if not folders:
    raise UserError("a report needs at least one run's folder")
  return [read_run(Path(folder)) for folder in folders]
