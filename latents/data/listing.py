"""What lies in a folder of examples: files, classes and splits, in an order that no machine changes."""

import dataclasses
import os
from collections.abc import Iterable

from latents.data.source import Split, held_out
from latents.errors import UserError

SPLITS: dict[Split, tuple[str, ...]] = {"train": ("train",), "test": ("test", "validation", "val", "valid")}


@dataclasses.dataclass(frozen=True)
class Listing:
  """The files of both splits, as paths relative to `root` with forward slashes, and the label names."""

  root: str
  train: tuple[str, ...]
  test: tuple[str, ...]
  names: tuple[str, ...]  # class subfolders, in sorted order; () = no labels
  split_folders: bool  # whether the first folder of a path is its split

  def files(self, split: Split) -> tuple[str, ...]:
    """The relative paths of a split."""
    return self.train if split == "train" else self.test

  def label(self, name: str) -> int | None:
    """The label of a file: the subfolder (below train or test) that it lies in."""
    return self.names.index(folder_of(name, self.split_folders)) if self.names else None


def folder_of(name: str, split_folders: bool) -> str:
  """The class folder of a relative path, '' when the file lies flat."""
  parts = name.split("/")[1 if split_folders else 0 :]
  return parts[0] if len(parts) > 1 else ""


def list_folder(root: str, extensions: tuple[str, ...], what: str) -> Listing:
  """All files below `root` with one of the (lower-case) extensions, hidden ones aside. Raises UserError
  when the folder is missing or has none; `what` names them in the message ('image files')."""
  if not os.path.isdir(root):
    raise UserError(f"no such folder: {root}")
  return arrange(root, walk(root, extensions), what)


def walk(root: str, extensions: tuple[str, ...]) -> Iterable[str]:
  """The relative paths below a folder, in no order."""
  for folder, folders, names in os.walk(root):
    folders[:] = [name for name in folders if not name.startswith(".")]
    for name in names:
      if name.lower().endswith(extensions) and not name.startswith("."):
        yield os.path.relpath(os.path.join(folder, name), root).replace(os.sep, "/")


def arrange(root: str, found: Iterable[str], what: str) -> Listing:
  """Relative paths -> their splits (folders train and test, else a tenth by hash) and classes."""
  names = sorted(found)
  if not names:
    raise UserError(f"no {what} in {root}")
  tops = {name.split("/")[0] for name in names if "/" in name}
  second = next((top for top in SPLITS["test"] if top in tops), None)
  split_folders = "train" in tops and second is not None
  if split_folders:
    train = [name for name in names if name.startswith("train/")]
    test = [name for name in names if name.startswith(f"{second}/")]
  else:
    test_rows = held_out(names)
    train = [name for name, is_test in zip(names, test_rows, strict=True) if not is_test]
    test = [name for name, is_test in zip(names, test_rows, strict=True) if is_test]
  classes = {folder_of(name, split_folders) for name in train + test}
  labelled = "" not in classes and len(classes) > 1  # one folder for everything says nothing
  return Listing(root, tuple(train), tuple(test), tuple(sorted(classes)) if labelled else (), split_folders)
