"""Seals of checkpoints: the SHA-256 of every file, so that a flipped bit is found before anything is read."""

import hashlib
import json
import os
import threading
import time
from pathlib import Path

from latents.machine import hosts
from latents.machine.disk import disk_errors


class Seals:
  """The seals `<seals>/<step>.json` of the checkpoints `<folder>/<step>/`; the first process keeps them.

  A checkpoint without a seal (its process was killed in the moment between the two) has no fault: Orbax
  put it in its place whole.
  """

  def __init__(self, folder: Path, seals: Path):
    self.folder, self.seals = folder, seals
    self.thread: threading.Thread | None = None
    self.error: BaseException | None = None
    self.closed = False

  def clear(self, step: int) -> None:
    """Before a save: an old seal must not stand beside the new checkpoint, nor beside none."""
    for old in self.seals.glob("*.json") if hosts.first() else ():
      if old.stem == str(step) or not (self.folder / old.stem).exists():
        old.unlink(missing_ok=True)

  def start(self, step: int) -> None:
    """Seal a checkpoint in the background, as soon as it is in its place."""
    if hosts.first():
      self.thread = threading.Thread(target=self._run, args=(step,), name="latents seal", daemon=True)
      self.thread.start()

  def finish(self) -> None:
    """Wait for the seal; raise what it met."""
    if self.thread is not None:
      self.thread.join()
      self.thread = None
    self.check()

  def close(self) -> None:
    """As `finish`, where the checkpoint may never have come."""
    self.closed = True
    self.finish()

  def check(self) -> None:
    """Raise what a seal has met."""
    if self.error is not None:
      error, self.error = self.error, None
      raise error

  def fault(self, step: int) -> str | None:
    """What is wrong with the files of a checkpoint, or None."""
    path = self.seals / f"{step}.json"
    if not path.exists():
      return None
    try:
      wanted = json.loads(path.read_text())
    except (OSError, ValueError):
      return "has a seal that cannot be read"
    found = digests(self.folder / str(step))
    if not isinstance(wanted, dict) or set(wanted) != set(found):
      return "does not have the files it was saved with"
    broken = sorted(name for name in wanted if wanted[name] != found[name])
    return f"is damaged ({broken[0]} has changed since it was saved)" if broken else None

  def _run(self, step: int) -> None:
    place = self.folder / str(step)
    try:
      while not place.exists():  # Orbax renames it when it is whole; a save that fails never comes so far
        if self.closed:
          return
        time.sleep(0.01)
      with disk_errors(self.seals):
        self.seals.mkdir(exist_ok=True)
        temporary = self.seals / f"{step}.tmp"
        temporary.write_text(json.dumps(digests(place)))
        os.replace(temporary, self.seals / f"{step}.json")
    except BaseException as error:  # noqa: BLE001  (raised again by `check`, in the main thread)
      self.error = error


def digests(folder: Path) -> dict[str, str]:
  """Relative path -> SHA-256 of every file below a folder."""
  found = {}
  for path in sorted(folder.rglob("*")):
    if path.is_file():
      with path.open("rb") as file:
        found[path.relative_to(folder).as_posix()] = hashlib.file_digest(file, "sha256").hexdigest()
  return found
