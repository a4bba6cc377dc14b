"""The mark in every picture, animation, recording, text and page that this package writes, so that it is never read as
data."""

import os

MARK = "made by latents"
MARKED = (".png", ".webp", ".gif", ".wav", ".flac")  # endings of files that can carry it
# Of files that people write too, and who may say the same words: how it stands in a text, a page, a table.
TEXT, PAGE, TABLE = (f"[{MARK}]\n", f'<meta name="generator" content="{MARK}">', f"<!-- {MARK} -->\n")
WRITTEN = {".txt": TEXT, ".html": PAGE, ".htm": PAGE, ".md": TABLE}
REACH = 1024  # bytes from either end of a file that hold it


def marked(path: str) -> bool:
  """Whether a file carries the mark; False for one that cannot be read."""
  ending = os.path.splitext(path.lower())[1]
  if ending not in MARKED and ending not in WRITTEN:
    return False
  mark = WRITTEN.get(ending, MARK).strip().encode()
  try:
    with open(path, "rb", buffering=0) as file:
      if mark in file.read(REACH):
        return True
      if ending not in (".webp", ".txt", ".md"):  # those that have it at their end
        return False
      file.seek(max(0, os.fstat(file.fileno()).st_size - REACH))
      return mark in file.read(REACH)
  except OSError:
    return False
