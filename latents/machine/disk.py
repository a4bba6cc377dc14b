"""Full, read-only and forbidden disks, met anywhere, as one clear line."""

import contextlib
import errno
import fcntl
import os
import re
import stat
import warnings
from collections.abc import Iterator, Sequence
from pathlib import Path

from latents.errors import UserError


def on_disk(path: Path | str) -> Path:
  """The path of what is read or written here. UserError for SCHEME://..., also where pathlib has made it SCHEME:/..."""
  found = re.match(rf"([A-Za-z][A-Za-z0-9+.-]+):/{'' if isinstance(path, Path) else '/'}", str(path))
  if found is not None:
    raise UserError(
      f"{found[1]}://{str(path)[found.end() :].lstrip('/')}: only paths of this machine's disks are possible"
    )
  return Path(path)


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
    if number == errno.ENAMETOOLONG:
      return "the name is too long"
    if number == errno.ENOTDIR:
      return "a part of the path is a file, not a folder"
    if number == errno.ELOOP:
      return "its links lead round in a circle"
    error, seen = error.__cause__ or error.__context__, seen + 1
  return None


LONGEST = 240  # bytes of a name: file systems take 255, and a file's first name ends in .tmp


def lock(file: int, what: str) -> bool:
  """Take the lock of an open file for this process until it ends: False if another one holds it.

  Some network file systems have no locks (ENOLCK, ENOSYS, EOPNOTSUPP): then there is a warning, and none is held.
  """
  try:
    fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
  except OSError as error:
    if error.errno in (errno.EAGAIN, errno.EACCES):
      return False
    warnings.warn(
      f"{what}: this file system has no locks ({error.strerror}): see to it that one process at a time writes there",
      stacklevel=2,
    )
  return True


def check_folder(folder: Path) -> None:
  """UserError, one line, unless files can be written in `folder`, or it can be made: to be asked before any work."""
  for place in (folder.absolute(), *folder.absolute().parents):
    if len(os.fsencode(place.name)) > LONGEST:
      raise UserError(f"the name {place.name[:20]}... is too long: at most {LONGEST} bytes")
    try:
      found = os.stat(place)
    except (FileNotFoundError, NotADirectoryError):
      if place.is_symlink():
        raise UserError(f"{place} is a link to nothing") from None
      continue
    except OSError as error:
      raise UserError(f"{place}: {disk_reason(error) or error.strerror}") from None
    if not stat.S_ISDIR(found.st_mode):
      raise UserError(f"{place} is not a folder")
    if not os.access(place, os.W_OK | os.X_OK):
      raise UserError(f"nothing can be written in {place}: permission denied, or a read-only file system")
    return


def check_file(path: Path, endings: Sequence[str], overwrite: bool, flag: str = "--out") -> None:
  """UserError, one line, unless a file with one of these endings can be written there, where nothing is yet."""
  if path.suffix not in endings:
    raise UserError(f"{flag} {path}: the ending must be one of {', '.join(endings)}")
  if len(os.fsencode(path.name)) > LONGEST:
    raise UserError(f"{flag}: the name {path.name[:20]}... is too long: at most {LONGEST} bytes")
  check_folder(path.absolute().parent)
  if path.is_dir():
    raise UserError(f"{flag} {path} is a folder")
  if os.path.lexists(path) and not overwrite:
    raise UserError(f"{path} exists already: choose another {flag}, or add --overwrite")
