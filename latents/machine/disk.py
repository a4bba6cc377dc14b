"""Full, read-only and forbidden disks, met anywhere, as one clear line."""

import contextlib
import errno
import re
from collections.abc import Iterator
from pathlib import Path

from latents.errors import UserError


def on_disk(path: Path | str) -> Path:
  """The path of what is read or written here. UserError for SCHEME://..., also where pathlib has made it SCHEME:/..."""
  found = re.match(r"([A-Za-z][A-Za-z0-9+.-]+):/", str(path))
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
    error, seen = error.__cause__ or error.__context__, seen + 1
  return None
