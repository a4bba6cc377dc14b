"""The log of a run: metrics.jsonl always, TensorBoard event files, one line a step and stage."""

import json
import math
import os
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image
from tensorboardX import SummaryWriter

from latents.machine.disk import disk_errors

FILE = "metrics.jsonl"


def read(path: Path) -> list[dict[str, Any]]:
  """The lines of a metrics.jsonl; what is none, such as a last line that was cut by a crash, is left out."""
  if not path.exists():
    return []
  lines = []
  for text in path.read_text(errors="replace").splitlines():
    try:
      line = json.loads(text)
    except (ValueError, RecursionError):
      continue
    if isinstance(line, dict) and isinstance(line.get("stage"), int) and isinstance(line.get("step"), int):
      lines.append(line)
  return lines


def seconds(path: Path, stage: int) -> float:
  """Seconds that the steps of a stage took, over all sessions of the run, from its log."""
  lines = [line for line in read(path) if line["stage"] == stage]
  spans = zip([0, *(line["step"] for line in lines)], lines, strict=False)
  return sum((line["step"] - before) * (line.get("time/step_s") or 0.0) for before, line in spans)


class Log:
  """Appends `{"stage": 1, "step": 100, "train/total": ..., "time/step_s": ...}` to a run's file.

  Opening it for a stage at `step` drops that stage's lines past the step (they will be written again)
  and lines of later stages. Only the process that has a `folder` writes.
  """

  def __init__(self, folder: Path | None, stage: int, step: int):
    self.stage = stage
    self.path = folder / FILE if folder else None
    if self.path is None or folder is None:
      return
    kept = [li for li in read(self.path) if (li["stage"], li["step"]) <= (stage, step)]
    rewrite(self.path, kept)
    with disk_errors(folder):
      self._file = self.path.open("a")
      self._board = SummaryWriter(
        str(folder / "tensorboard" / f"stage{stage}"), purge_step=step + 1, write_to_disk=True
      )

  def write(self, step: int, values: Mapping[str, float]) -> None:
    """One line; a value that JSON has no number for (nan, inf) becomes null."""
    if self.path is None:
      return
    line = {"stage": self.stage, "step": step}
    line |= {k: v if math.isfinite(v) else None for k, v in values.items()}
    with disk_errors(self.path.parent):
      self._file.write(json.dumps(line) + "\n")
      self._file.flush()
    for name, value in values.items():
      self._board.add_scalar(f"stage{self.stage}/{name}", value, step)

  def close(self) -> None:
    """Flush and close both files."""
    if self.path is not None:
      self._file.close()
      self._board.close()


def show(run: Path, step: int, scores: Mapping[str, Any], pictures: Iterable[Path]) -> None:
  """Put a run's scores, and its pictures (PNG files, by their names), into TensorBoard too, at `step`."""
  board = SummaryWriter(str(run / "tensorboard" / "scores"), write_to_disk=True)
  for name, value in _numbers(scores, "scores"):
    board.add_scalar(name, value, step)
  for path in pictures:
    with Image.open(path) as image:
      board.add_image(path.stem, np.asarray(image.convert("RGB")), step, dataformats="HWC")
  board.close()


def _numbers(tree: Any, path: str) -> Iterator[tuple[str, float]]:
  if isinstance(tree, Mapping):
    for name, value in tree.items():
      yield from _numbers(value, f"{path}/{name}" if name else path)
  elif isinstance(tree, int | float) and not isinstance(tree, bool) and math.isfinite(tree):
    yield path, float(tree)


def rewrite(path: Path, lines: Iterable[Mapping[str, Any]]) -> None:
  """Replace the file by these lines, whole or not at all."""
  temporary = path.with_name(path.name + ".tmp")
  with disk_errors(path.parent):
    temporary.write_text("".join(json.dumps(line) + "\n" for line in lines))
    os.replace(temporary, path)
