"""What lies in a folder of examples: files, classes and splits, in an order that no machine changes."""

import collections
import dataclasses
import functools
import itertools
import re
import warnings
from collections.abc import Iterable, Sequence

from latents.data.source import Split, held_out, some
from latents.data.walk import look
from latents.errors import UserError

# A folder of a split by its name in small letters, without digits, spaces and signs: "Train", "val2017", "test_images".
SPLIT = re.compile(
  r"(?:data|images?|imgs?)?"
  r"(?:(train|training|trn)|(test|testing|tst)|(validation|valid|val|eval|evaluation|dev|holdout|heldout))"
  r"(?:set|data|images?|imgs?|split|[ab])?"
)


USUAL = {"train", "test", "validation", "val", "valid"}  # names that need no word


@dataclasses.dataclass(frozen=True)
class Listing:
  """The files of both splits, as paths relative to `root` with forward slashes, and the label names.

  names: class folders, in sorted order; () = no labels. at: the place of the class folder among the parts of a path.
  note: what is used and what is not; told: whether that is other than anybody would expect. why: there are no labels,
  '' where there are; missed: whether folders suggest some.
  """

  root: str
  train: tuple[str, ...]
  test: tuple[str, ...]
  names: tuple[str, ...]
  at: int
  note: str = ""
  told: bool = False
  why: str = ""
  missed: bool = False

  def files(self, split: Split) -> tuple[str, ...]:
    """The relative paths of a split."""
    return self.train if split == "train" else self.test

  def label(self, name: str) -> int | None:
    """The label of a file: the class folder that it lies in."""
    return self.names.index(folder_of(name, self.at)) if self.names else None

  def line(self, labels: str = "") -> str:
    """What is used, what is not, and why there are no labels; labels: where they come from if not from folders."""
    why = f"no labels: {self.why}" if self.why and not labels else labels
    return f"{self.note}; {why}" if why else self.note

  def tell(self, labels: str = "") -> "Listing":
    """Warns with `line` where not all is used, or folders gave no labels."""
    if self.told or (self.missed and not labels):
      warnings.warn(f"{self.root}: {self.line(labels)}", stacklevel=3)
    return self


def list_folder(root: str, extensions: tuple[str, ...], what: str) -> Listing:
  """All files below `root` with one of the (lower-case) extensions, hidden ones aside. Raises UserError
  when the folder is missing or has none; `what` names them in the message ('image files')."""
  return arrange(root, *look(root).pick(extensions), what)


def arrange(root: str, found: Iterable[str], left: Sequence[str], what: str) -> Listing:
  """Relative paths -> their splits (folders with names of splits, else a tenth by hash) and classes.

  left: what was left out before, in words. Folders that alone hold everything, above the splits and below, are passed
  over. Splits are the outermost folders, or lie in each class's.
  """
  names = sorted(found)
  left_out = [f"left out: {some(left)}"] if left else []
  if not names:
    raise UserError(f"no {what} in {root}{'; ' + left_out[0] if left else ''}")
  outer, parted = find_splits(names)
  said, usual = [], False
  if outer:
    said.append(f"in {'/'.join(next(name for name in names if folder_of(name, outer - 1)).split('/')[:outer])}")
  if parted:
    train, test, at, chosen = parted
    said.append("; ".join(f"{split}: {', '.join(folders)}" for split, folders in chosen.items()))
    used = {*train, *test}
    unused = [name for name in names if name not in used]
    usual = at == 1 and {*chosen["train"], *chosen["test"]} <= USUAL
  else:
    unused, at = aside(names, outer)
    others = set(unused)
    kept = [name for name in names if name not in others]
    rows = held_out(kept)
    train = [name for name, is_test in zip(kept, rows, strict=True) if not is_test]
    test = [name for name, is_test in zip(kept, rows, strict=True) if is_test]
    said.append(f"no folders of both splits: {len(test)} of {len(kept)} are held out by a hash of their names")
  if unused:
    said.append(f"not used: {some(counted(unused, outer), ', ')}")
  classes = {folder_of(name, at) for name in train + test}
  labelled = "" not in classes and len(classes) > 1  # one folder for everything says nothing
  return Listing(
    root=root, train=tuple(train), test=tuple(test), names=tuple(sorted(classes)) if labelled else (), at=at,
    note="; ".join(said + left_out), told=bool(unused or left or (at > 0 and not usual)),
    why="" if labelled else reason(train + test, classes, at), missed=not labelled and (at > 0 or classes != {""}),
  )  # fmt: skip


Parted = tuple[list[str], list[str], int, dict[str, list[str]]]  # see `split_outside`


def find_splits(names: Sequence[str]) -> tuple[int, Parted | None]:
  """(how many folders stand above everything, the splits if there are any); files beside one lone folder do not hide
  the splits in it."""
  outer = common(names)
  parted = split_outside(names, outer) or split_inside(names, outer)
  inside = [name for name in names if folder_of(name, outer)]
  if parted or not inside or len({folder_of(name, outer) for name in inside}) > 1:
    return outer, parted
  deeper = common(inside)
  parted = split_outside(inside, deeper) or split_inside(inside, deeper)
  return (deeper if parted else outer), parted


def split_outside(names: Sequence[str], outer: int) -> Parted | None:
  """(train, test, the place of classes, the folders of each split) where the outermost folders are splits; the test
  split is of that name, or a validation split where only that has the classes of train."""
  tops = sorted({folder_of(name, outer) for name in names} - {""})
  kinds = {top: kind_of(top) for top in tops}
  if "train" not in kinds.values():
    return None
  trees = {
    kind: [n for n in names if kinds.get(folder_of(n, outer)) == kind] for kind in ("train", "test", "validation")
  }
  best = None
  for kind in ("test", "validation"):
    if not trees[kind]:
      continue
    rest = [n.split("/", outer + 1)[-1] for n in trees["train"] + trees[kind]]
    at = outer + 1 + common(rest)
    flat = ["" in {folder_of(n, at) for n in trees[split]} for split in ("train", kind)]
    chosen = {"train": [t for t in tops if kinds[t] == "train"], "test": [t for t in tops if kinds[t] == kind]}
    found = (trees["train"], trees[kind], at, chosen)
    if flat[0] or not flat[1]:
      return found
    best = best or found
  return best


def split_inside(names: Sequence[str], outer: int) -> Parted | None:
  """The same where every class folder holds folders of both splits and nothing else."""
  kinds = {(folder_of(name, outer), kind_of(folder_of(name, outer + 1))) for name in names}
  classes = {name for name, _ in kinds}
  second = next((k for k in ("test", "validation") if all({(c, "train"), (c, k)} <= kinds for c in classes)), None)
  if second is None or "" in {kind for _, kind in kinds}:
    return None
  trees = {kind: [n for n in names if kind_of(part(n, outer + 1)) == kind] for kind in ("train", second)}
  folders = {kind: sorted({part(n, outer + 1) for n in tree}) for kind, tree in trees.items()}
  return trees["train"], trees[second], outer, {"train": folders["train"], "test": folders[second]}


def aside(names: Sequence[str], outer: int) -> tuple[list[str], int]:
  """(files that are not trained on, the place of classes) where there is no train and test: those beside one folder
  that is named as a split, and those of a test folder beside classes."""
  tops = sorted({folder_of(name, outer) for name in names})
  named = [top for top in tops if kind_of(top)]
  if len(named) == 1 and set(tops) <= {"", named[0]}:
    rest = [n.split("/", outer + 1)[-1] for n in names if folder_of(n, outer)]
    return [n for n in names if not folder_of(n, outer)], outer + 1 + common(rest)
  held = [top for top in named if kind_of(top) != "train"]
  if held and len(set(tops) - {"", *held}) >= 2:
    return [name for name in names if folder_of(name, outer) in held], outer
  return [], outer


@functools.cache
def kind_of(folder: str) -> str:
  """'train', 'test' or 'validation' for a folder with a name of that split, else ''."""
  found = SPLIT.fullmatch(re.sub("[^a-z]", "", folder.lower()))
  groups = found.groups() if found else ("", "", "")
  return next((kind for kind, hit in zip(("train", "test", "validation"), groups, strict=True) if hit), "")


def common(names: Sequence[str]) -> int:
  """How many folders stand before all of the paths."""
  first, last = (name.split("/")[:-1] for name in (min(names), max(names)))
  return sum(1 for _ in itertools.takewhile(lambda pair: pair[0] == pair[1], zip(first, last, strict=False)))


def part(name: str, place: int) -> str:
  """The part of a path at a place, '' when it has fewer."""
  parts = name.split("/")
  return parts[place] if len(parts) > place else ""


def folder_of(name: str, at: int) -> str:
  """The folder of a relative path at a place, '' when the file does not lie that deep."""
  parts = name.split("/", at + 1)
  return parts[at] if len(parts) > at + 1 else ""


def counted(names: Sequence[str], at: int) -> list[str]:
  """['FOLDER (3 files)'] of paths, by their folders at a place."""
  count = collections.Counter(folder_of(name, at) for name in names)
  return [f"{folder or 'beside the folders'} ({n} file{'s' if n > 1 else ''})" for folder, n in sorted(count.items())]


def reason(names: Sequence[str], classes: set[str], at: int) -> str:
  """Why there are no labels."""
  if classes == {""} or len(classes) == 1:
    return "all files lie in one folder, with no folders of classes"
  flat = [name for name in names if not folder_of(name, at)]
  return f"{len(flat)} of {len(names)} files lie outside the folders of classes, such as {flat[0]}"
