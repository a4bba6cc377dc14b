"""Checkpoints of a training state: Orbax behind one class.

A checkpoint is a flat dict of arrays by path, so it does not depend on optax's or linen's own types,
and it is restored strictly: the same names and shapes, laid out on whatever mesh asks for it.
"""

import logging
import time
from pathlib import Path
from typing import Any

import numpy as np
import orbax.checkpoint as ocp

from latents.errors import UserError, first_line
from latents.machine import hosts
from latents.machine.disk import disk_errors
from latents.train import writing
from latents.train.seals import Seals
from latents.train.state import State, flatten, unflatten

# Orbax reports every save, and the errors of its threads with their tracebacks; those reach us by the next call.
logging.getLogger("absl").setLevel(logging.CRITICAL)
POLL_S = 0.005  # between two looks at a save that is waited for


class Checkpoints:
  """The checkpoints of one stage in a folder; the newest `keep` stay (None: all).

  Beside each lies a seal, the SHA-256 of its files, written by the first process as soon as Orbax has
  put the checkpoint in its place. A checkpoint that does not match its seal is never opened.
  """

  def __init__(self, folder: Path, keep: int | None = 2):
    self.folder = folder.absolute()
    self.seals = Seals(self.folder, self.folder.with_name("seals"))
    self._saving = False
    self.notes: list[str] = []  # what a user should be told, e.g. that a damaged one was passed over
    with disk_errors(self.folder):
      options = ocp.CheckpointManagerOptions(max_to_keep=keep, cleanup_tmp_directories=True, create=True)
      self._handler = writing.Handler()  # said here, or a new manager cannot list what is stored
      self._manager = ocp.CheckpointManager(self.folder, options=options, item_handlers=self._handler)

  def save(self, step: int, state: State) -> None:
    """Start to write the state after `step` updates, once the one before is on the disk."""
    with disk_errors(self.folder):
      self.finish()
      self.seals.clear(step)
      self._manager.save(step, args=writing.Save(flatten(state)), force=True)
      self._saving = True
      self.seals.start(step)

  def check(self) -> None:
    """Raise what a save in the background has met; to be asked at every step."""
    with disk_errors(self.folder):
      self._raise_met()
      if self._saving and not self._manager.is_saving_in_progress():
        self._saving = False
        self._manager.wait_until_finished()  # at once; `check_for_errors` alone keeps silent until the next save
        self._manager.check_for_errors()
      self.seals.check()

  def restore(self, abstract: State) -> State | None:
    """The newest sound checkpoint on the shardings of `abstract`; None if there is none.

    One that is damaged, or has other arrays than the declaration, is passed over for the one before it,
    which is said in `notes`. UserError if none is left.
    """
    wanted = flatten(abstract)
    tried: set[int] = set()
    mismatch: UserError | None = None
    while (step := self._newest(tried)) is not None:
      tried.add(step)
      try:
        self._check(step, wanted)
        flat = self._manager.restore(step, args=writing.Restore(wanted))
        return unflatten(abstract, dict(flat))
      except UserError as error:
        mismatch = mismatch or error
        self.notes.append(f"{error}; it was passed over")
      except Exception as error:
        if hosts.processes() > 1:  # the others may have read their part: no process goes back alone
          raise
        self._pass_over(step, f"cannot be read: {first_line(error)}")
    if mismatch:
      raise mismatch
    if tried or self.notes:
      raise UserError(
        f"no checkpoint in {self.folder} can be read (delete that folder to begin the stage anew): {self.notes[-1]}"
      )
    return None

  def sound(self) -> list[int]:
    """The steps of all checkpoints that their seals do not belie, in order."""
    with disk_errors(self.folder):
      return [step for step in sorted(self._manager.all_steps()) if self.seals.fault(step) is None]

  def arrays(self, step: int) -> dict[str, np.ndarray]:
    """Every array of a checkpoint, as it was saved. UserError where it cannot be read."""
    try:
      found = self._manager.item_metadata(step)
      found = getattr(found, "tree", found)
      like = {name: np.broadcast_to(np.zeros((), one.dtype), one.shape) for name, one in found.items()}
      return {k: np.asarray(a) for k, a in self._manager.restore(step, args=writing.Restore(like)).items()}
    except Exception as error:  # noqa: BLE001  (Orbax raises what it likes)
      raise UserError(f"the checkpoint {self.folder}/{step} cannot be read: {first_line(error)}") from None

  def discard_after(self, step: int) -> None:
    """Delete checkpoints past `step` (damaged ones that were passed over)."""
    later = hosts.tell("discard", " ".join(str(s) for s in self._manager.all_steps() if s > step))
    for number in map(int, later.split()):
      self._manager.delete(number)

  def finish(self) -> None:
    """Wait until everything is on the disk and sealed; raise what a background save met."""
    with disk_errors(self.folder):
      while self._manager.is_saving_in_progress():  # not one wait: it would hold back what this process has met
        self._raise_met()
        time.sleep(POLL_S)
      self._manager.wait_until_finished()
      self._manager.check_for_errors()
      self.seals.finish()

  def close(self) -> None:
    """Finish and release the threads. Where one of several processes could not write, its threads are left: they
    wait for others, and the process is about to end."""
    try:
      if self._handler.met is None or hosts.processes() == 1:
        with disk_errors(self.folder):
          self._manager.close()
    finally:
      self.seals.close()

  def _raise_met(self) -> None:
    if self._handler.met is not None:
      raise self._handler.met

  def _newest(self, tried: set[int]) -> int | None:
    """The newest untried step that its seal does not belie: the first process looks, for all."""
    found = ""
    for step in sorted(self._manager.all_steps() if hosts.first() else (), reverse=True):
      if step in tried:
        continue
      fault = self.seals.fault(step)
      if fault is None:
        found = str(step)
        break
      tried.add(step)
      self._pass_over(step, fault)
    found = hosts.tell("restore", found)
    return int(found) if found else None

  def _pass_over(self, step: int, fault: str) -> None:
    self.notes.append(f"checkpoint {step} in {self.folder} {fault}; it was passed over")

  def _check(self, step: int, wanted: dict[str, Any]) -> None:
    found = self._manager.item_metadata(step)
    found = getattr(found, "tree", found)
    if not isinstance(found, dict):
      raise ValueError("its list of arrays is missing")
    for word, names in (("lacks", set(wanted) - set(found)), ("has the unknown", set(found) - set(wanted))):
      if names:
        raise UserError(f"the checkpoint {self.folder}/{step} {word} array {sorted(names)[0]} ({len(names)} in all)")
    for name, array in wanted.items():
      if tuple(found[name].shape) != tuple(array.shape):
        raise UserError(
          f"the checkpoint {self.folder}/{step} has {name} of shape {tuple(found[name].shape)}, "
          f"the experiment needs {tuple(array.shape)}"
        )
