"""Checkpoints of a training state: Orbax behind one class.

A checkpoint is a flat dict of arrays by path, so it does not depend on optax's or linen's own types,
and it is restored strictly: the same names and shapes, laid out on whatever mesh asks for it.
"""

import contextlib
import errno
import logging
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import jax
import orbax.checkpoint as ocp

from latents.errors import UserError
from latents.train.state import State, flatten, unflatten

# Orbax reports every save, and the errors of its threads with their tracebacks; those reach us by the next call.
logging.getLogger("absl").setLevel(logging.CRITICAL)


class Checkpoints:
  """The checkpoints of one stage in a folder; the newest `keep` stay."""

  def __init__(self, folder: Path, keep: int = 2):
    self.folder = folder.absolute()
    self.notes: list[str] = []  # what a user should be told, e.g. that a damaged one was passed over
    with disk_errors(self.folder):
      options = ocp.CheckpointManagerOptions(max_to_keep=keep, cleanup_tmp_directories=True, create=True)
      handler = ocp.StandardCheckpointHandler()  # said here, or a new manager cannot list what is stored
      self._manager = ocp.CheckpointManager(self.folder, options=options, item_handlers=handler)

  def save(self, step: int, state: State) -> None:
    """Start to write the state after `step` updates; errors of the one before surface here."""
    with disk_errors(self.folder):
      self._manager.check_for_errors()
      self._manager.save(step, args=ocp.args.StandardSave(flatten(state)), force=True)

  def restore(self, abstract: State) -> State | None:
    """The newest readable checkpoint on the shardings of `abstract`; None if there is none.

    UserError if names or shapes differ from the declaration's. A damaged one is passed over for the
    one before it, which is said in `notes`.
    """
    steps = sorted(self._manager.all_steps(), reverse=True)
    wanted = flatten(abstract)
    for step in steps:
      try:
        self._check(step, wanted)
        flat = self._manager.restore(step, args=ocp.args.StandardRestore(wanted))
        return unflatten(abstract, dict(flat))
      except UserError:
        raise
      except Exception as error:  # noqa: BLE001  (Orbax raises whatever its storage layers raise)
        reason = str(error).strip().splitlines()[0][:160] if str(error).strip() else type(error).__name__
        self.notes.append(f"checkpoint {step} in {self.folder} cannot be read and was passed over: {reason}")
    if steps:
      raise UserError(f"no checkpoint in {self.folder} can be read: {self.notes[-1]}")
    return None

  def discard_after(self, step: int) -> None:
    """Delete checkpoints past `step` (damaged ones that were passed over)."""
    for later in self._manager.all_steps():
      if later > step:
        self._manager.delete(later)

  def finish(self) -> None:
    """Wait until everything is on the disk; raise what a background save met."""
    with disk_errors(self.folder):
      self._manager.wait_until_finished()
      self._manager.check_for_errors()

  def close(self) -> None:
    """Finish and release the threads."""
    with disk_errors(self.folder):
      self._manager.close()

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


@contextlib.contextmanager
def disk_errors(folder: Path) -> Iterator[None]:
  """Full or read-only disks, met anywhere below, as one clear line."""
  try:
    yield
  except UserError:
    raise
  except Exception as error:
    reason = disk_reason(error)
    if reason is None:
      raise
    raise UserError(f"cannot write in {folder}: {reason}; the last complete checkpoint is kept") from error


def disk_reason(error: BaseException | None) -> str | None:
  """'the disk is full' or the like if an error or one of its causes is about the disk, else None."""
  seen = 0
  while error is not None and seen < 10:
    number = getattr(error, "errno", None)
    text = str(error)
    if number in (errno.ENOSPC, errno.EDQUOT) or "No space left" in text or "quota exceeded" in text.lower():
      return "the disk is full"
    if number == errno.EFBIG or "File too large" in text:
      return "the file size limit is reached"
    if number == errno.EROFS or "Read-only file system" in text:
      return "the file system is read-only"
    if number in (errno.EACCES, errno.EPERM) or "Permission denied" in text:
      return "permission denied"
    error, seen = error.__cause__ or error.__context__, seen + 1
  return None


def local(tree: Any) -> Any:
  """Global arrays -> numpy on this host; gathers what other processes hold."""
  if jax.process_count() == 1:
    return jax.device_get(tree)
  from jax.experimental import multihost_utils  # needs a running distributed client

  return multihost_utils.process_allgather(tree, tiled=True)
