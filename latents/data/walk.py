"""A look through a folder: every file that can be data, and a reason for all that is left out."""

import collections
import dataclasses
import os
from collections.abc import Iterable, Sequence
from typing import Any

from latents.data.source import some
from latents.errors import Missing, UserError
from latents.media.mark import marked

# Files that stand beside data and are missed by nobody: their endings, and names without one.
COMPANIONS = (
  ".txt", ".md", ".rst", ".pdf", ".html", ".json", ".jsonl", ".csv", ".tsv", ".xml", ".yaml", ".yml", ".toml", ".ini",
  ".db", ".log", ".py", ".ipynb", ".sh", ".mat", ".npy", ".npz", ".h5", ".pkl", ".pt",
)  # fmt: skip
NAMES = ("readme", "license", "licence", "copying", "changelog", "authors", "citation", "makefile", "checksums")


@dataclasses.dataclass(frozen=True)
class Tree:
  """The files below `root`, hidden ones aside: [(folder, names)] in sorted order, a folder as its path relative to the
  root with forward slashes ('' is the root itself). left: what was not looked at, 'PATH (reason)' each."""

  root: str
  folders: tuple[tuple[str, tuple[str, ...]], ...]
  left: tuple[str, ...]

  def pick(self, extensions: tuple[str, ...]) -> tuple[list[str], list[str]]:
    """(relative paths with one of the lower-case endings, what was left out and why)."""
    found, other, left = [], [], []
    for folder, names in self.folders:
      for name in names:
        path = join(folder, name)
        if not name.lower().endswith(extensions):
          other.append(name)
        elif marked(os.path.join(self.root, path)):
          left.append(f"{path} (made by latents)")
        else:
          found.append(path)
    return found, [*self.left, *unread(other), *left]


def join(folder: str, name: str) -> str:
  """A relative path with forward slashes."""
  return f"{folder}/{name}" if folder else name


def unread(names: Iterable[str]) -> list[str]:
  """['3 .heic, 1 .jp2 (endings that are not read)'] of the names that nobody reads; [] where nobody misses one."""
  count: collections.Counter[str] = collections.Counter()
  for name in names:
    stem, ending = os.path.splitext(name.lower())
    if ending not in COMPANIONS and stem not in NAMES:
      count[ending or "without an ending"] += 1
  said = [f"{number} {ending}" for ending, number in sorted(count.items(), key=lambda item: (-item[1], item[0]))]
  return [f"{some(said, ', ')} (endings that are not read)"] if said else []


def look(root: str) -> Tree:
  """Looks through a folder. Raises UserError when it is none, cannot be read, or is itself an output of latents.

  Links to folders are followed, after all real folders, but none is entered twice: neither in a loop nor under a second
  name, which would put one example into both splits.
  """
  root = os.path.abspath(root)
  if not os.path.isdir(root):
    raise UserError(f"{root} is a file, not a folder") if os.path.exists(root) else Missing(f"no such folder: {root}")
  seen: dict[tuple[int, int], str] = {identity(folder): "" for folder in above(root)}
  folders, left = [], []
  real, links = collections.deque([""]), collections.deque()
  while real or links:
    folder = real.popleft() if real else links.popleft()
    path = os.path.join(root, folder)
    try:
      known = identity(path)
      if known in seen:
        first = seen[known]
        left.append(f"{folder} (a link {'back to a folder above' if not first else f'to the same folder as {first}'})")
        continue
      seen[known] = folder
      with os.scandir(path) as entries:
        inside = sorted(entries, key=lambda entry: entry.name)
    except OSError as error:
      if not folder:
        raise UserError(f"cannot read {root}: {error.strerror}") from error
      left.append(f"{folder} ({str(error.strerror).lower()})")
      continue
    if made := own(path, {entry.name for entry in inside}):
      if not folder:
        raise UserError(f"{root} is {made}, which is no data")
      left.append(f"{folder} ({made})")
      continue
    names, below, linked, odd = sort(inside)
    folders.append((folder, names))
    real += [join(folder, name) for name in below]
    links += [join(folder, name) for name in linked]
    left += [f"{join(folder, name)} ({reason})" for name, reason in odd]
  return Tree(root, tuple(sorted(folders)), tuple(sorted(left)))


def sort(entries: Sequence[Any]) -> tuple[tuple[str, ...], list[str], list[str], list[tuple[str, str]]]:
  """Entries of a folder -> (files, folders, links to folders, [(what is neither, why)]); hidden ones aside."""
  files, folders, links, odd = [], [], [], []
  for entry in entries:
    if entry.name.startswith("."):
      continue
    try:
      if entry.is_dir():
        (links if entry.is_symlink() else folders).append(entry.name)
      elif entry.is_file() or (entry.is_symlink() and os.path.splitext(entry.name)[1] and not os.path.exists(entry)):
        files.append(entry.name)  # of a dangling link, who reads the file says what it is
      else:
        odd.append((entry.name, "no regular file" if os.path.exists(entry) else "a link that leads nowhere"))
    except OSError as error:  # a link in a circle of links
      odd.append((entry.name, str(error.strerror).lower()))
  return tuple(files), folders, links, odd


def identity(path: str) -> tuple[int, int]:
  """What tells a folder from every other, whatever it is called."""
  found = os.stat(path)
  return found.st_dev, found.st_ino


def above(root: str) -> list[str]:
  """The real folders that hold a folder."""
  found, path = [], os.path.realpath(root)
  while (parent := os.path.dirname(path)) != path:
    found.append(parent)
    path = parent
  return found


def own(path: str, names: set[str]) -> str:
  """What of this package a folder with these entries is, '' for none."""
  if "experiment.json" in names and declares(os.path.join(path, "experiment.json")):
    return "a run of latents"
  if {"artefact.json", "weights.safetensors"} <= names:
    return "a trained stage of latents"
  if {"table.json", "verdict.json"} <= names:
    return "a sweep of latents"
  if {"manifest.json", "stored.npy"} <= names:
    return "a latent cache"
  return "a prepared data set" if {"dataset_info.json", "features.json"} <= names else ""


def declares(path: str) -> bool:
  """Whether a file is the declaration of a run: it names classes of this package."""
  try:
    with open(path, "rb") as file:
      return b'"latents.' in file.read(1 << 16)
  except OSError:
    return False
