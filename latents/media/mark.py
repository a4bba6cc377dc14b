"""The mark in every picture, animation and recording that this package writes, so that it is never read as data."""

import os

MARK = "made by latents"
MARKED = (".png", ".webp", ".gif", ".wav", ".flac")  # endings of files that can carry it
REACH = 1024  # bytes from either end of a file that hold it


def marked(path: str) -> bool:
  """Whether a file carries the mark; False for one that cannot be read."""
  if not path.lower().endswith(MARKED):
    return False
  try:
    with open(path, "rb", buffering=0) as file:
      if MARK.encode() in file.read(REACH):
        return True
      if not path.lower().endswith(".webp"):  # the only one that has it at its end
        return False
      file.seek(max(0, os.fstat(file.fileno()).st_size - REACH))
      return MARK.encode() in file.read(REACH)
  except OSError:
    return False
