"""Finished stages by address, in `.stages` beside the runs: whatever is trained once is there for every run.

    runs/.stages/<address>-<digest of the data's identity, and of the latents that a prior is trained on>/
      weights.safetensors  losses.safetensors  averages.safetensors  recode.safetensors  metrics.jsonl  artefact.json

A run's folder holds hard links to these files (copies where links do not reach), so it is complete in itself, and
`.stages` may be deleted at any time. Files are replaced, never written in place, so that a link cannot change.
"""

import hashlib
import os
import shutil
from pathlib import Path
from typing import Any

from latents.errors import UserError
from latents.machine.disk import disk_errors
from latents.store import artefact
from latents.train import log

STORE = ".stages"
FILES = (  # the facts last: they say that all is there
  artefact.WEIGHTS, artefact.LOSSES, artefact.AVERAGES, artefact.RECODE, log.FILE, artefact.FACTS,
)  # fmt: skip


def place(runs: Path, facts: dict[str, Any]) -> Path:
  """Where a stage with these facts lies; "stage1" is the identity of the latents that a prior was trained on."""
  told = f"{facts.get('data')} {facts.get('stage1', '')}"
  return runs / STORE / f"{facts['address']}-{hashlib.sha256(told.encode()).hexdigest()[:10]}"


def put(runs: Path, stage: Path, facts: dict[str, Any], lines: list[dict[str, Any]]) -> None:
  """Keep a finished stage, whose log has these lines."""
  there = place(runs, facts)
  with disk_errors(there):
    there.mkdir(parents=True, exist_ok=True)
    log.rewrite(there / log.FILE, lines)
    for name in FILES:
      if (stage / name).exists() and name != log.FILE:
        link(stage / name, there / name)


def copy(source: Path, stage: Path) -> None:
  """Link the files of a finished stage into the folder of one."""
  with disk_errors(stage):
    stage.mkdir(parents=True, exist_ok=True)
    for name in FILES:
      if (source / name).exists() and name != log.FILE:
        link(source / name, stage / name)


def found(source: Path, wanted: dict[str, Any]) -> bool:
  """Whether a finished, undamaged stage with these facts lies in a folder. A neighbour's trouble is not ours."""
  if not (source / artefact.FACTS).exists():
    return False
  try:
    facts = artefact.facts_of(source)
    return facts.items() >= wanted.items() and artefact.read(source) is not None
  except UserError:
    return False


def link(source: Path, target: Path) -> None:
  """The same file under another name, or a copy; whole or not at all."""
  temporary = target.with_name(target.name + ".tmp")
  temporary.unlink(missing_ok=True)
  try:
    os.link(source, temporary)
  except OSError:  # another file system, or one without links
    shutil.copyfile(source, temporary)
  os.replace(temporary, target)
  temporary.unlink(missing_ok=True)  # POSIX renames nothing where both are names of one file
