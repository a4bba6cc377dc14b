"""Prepared TFDS data sets in ArrayRecord files, read without TensorFlow and without TFDS."""

import dataclasses
import functools
import json
import os
import re
import warnings
from collections.abc import Iterable
from typing import Any

import numpy as np

from latents.data.images import crop_and_flip, read_image, smaller
from latents.data.listing import kind_of
from latents.data.records import Shards, example, shard_names, whole
from latents.data.source import Broken, Decoded, Example, Records, Size, Source, Split, sides, sizes
from latents.errors import Missing, UserError, first_line, nearest
from latents.machine.disk import on_disk

METADATA = 16 << 20  # bytes: a larger JSON file is not the metadata of a set
CLASSES = 1 << 20  # more names of labels are not believed


@dataclasses.dataclass(frozen=True)
class Tfds(Source):
  """`name` is name[/config][:version] below `data_dir` (None: $TFDS_DATA_DIR or ~/tensorflow_datasets).

  The picture is the first Image feature, the label the ClassLabel (of the supervised pair, if it names
  one). test is the split of that name, else validation. `resize` makes it cover `size` before the
  crop. Nothing is downloaded and no code of the data set is run. labels: their number, where it must be
  known before the data are at hand (planning); None reads it. A set with another number is refused.
  """

  name: str
  data_dir: str | None = dataclasses.field(default=None, metadata={"address": False})
  size: Size = 64
  channels: int = 3
  resize: bool = True
  flip: bool = True
  labels: int | None = None

  @property
  def shape(self) -> tuple[int, ...]:
    """[H,W,C] after the crop."""
    return (*sides(self.size), self.channels)

  @functools.cached_property
  def folder(self) -> str:
    """Where the data set lies; looked for once."""
    return find(self.name, self.data_dir)

  @functools.cached_property
  def prepared(self) -> "Prepared":
    """What the metadata say; read once."""
    return read_metadata(self.folder)

  @property
  def names(self) -> tuple[str, ...]:
    """The label names."""
    return self.prepared.names

  @property
  def classes(self) -> int:
    """The number of labels, declared or read."""
    return len(self.names) if self.labels is None else self.labels

  def contents(self) -> Iterable[str]:
    """Name, version, labels, and every shard of every split with its records and bytes."""
    found = self.prepared
    yield f"{found.name} {found.version} {found.image} {found.label} {found.names}"
    for split in sorted(found.splits):
      shards = found.shards(split)
      bytes_ = sizes(found.folder, [os.path.basename(path) for path, _ in shards])
      yield from (f"{split} {count} {line}" for (_, count), line in zip(shards, bytes_, strict=True))

  def records(self, split: Split) -> Records:
    """As `Source.records`."""
    if self.labels not in (None, len(self.names)):
      raise UserError(f"the data set in {self.folder} has {len(self.names)} labels, not {self.labels}")
    shards = open_split(split, self.prepared)
    return Decoded(len(shards), functools.partial(self.read, shards))

  def read(self, shards: Shards, i: int) -> Example:
    """Record i: "x" uint8 [H,W,C] before the crop, and "label" where there are labels."""
    image, label = self.prepared.image, self.prepared.label
    try:
      found = example(shards[i], (image, label or ""))
      x = read_image(one(found, image, bytes), self.channels, self.size if self.resize else None)
      number = one(found, label, int) if label else 0
    except Broken as error:
      raise Broken(f"record {i} of {self.name} ({error})") from error
    if smaller(x.shape, self.size):
      raise Broken(f"record {i} of {self.name} ({x.shape[1]} x {x.shape[0]} is smaller than the crop)")
    if label and not 0 <= number < len(self.names):
      raise Broken(f"record {i} of {self.name} (label {number} of {len(self.names)})")
    return {"x": x, "label": np.int32(number)} if label else {"x": x}

  def augment(self, example: Example, rng: np.random.Generator, train: bool) -> Example:
    """As `Source.augment`: a random crop (and mirror image) in training."""
    return crop_and_flip(example, self.size, rng, train, self.flip)


def root(data_dir: str | None) -> str:
  """Where data sets are looked for."""
  return os.path.expanduser(on_disk(data_dir or os.environ.get("TFDS_DATA_DIR") or "~/tensorflow_datasets"))


def find(name: str, data_dir: str | None) -> str:
  """The version folder (which holds dataset_info.json) of a data set. Raises UserError naming the place."""
  base = root(data_dir)
  match = re.fullmatch(r"(\w+)(?:/([\w.+-]+))?(?::(\d+\.\d+\.\d+))?", name)
  if not match:
    raise UserError(f"{name!r} is not a TFDS name: name, name/config or name:1.0.0")
  parts = [part for part in match.group(1, 2) if part]
  folder = os.path.join(base, *parts)
  versions = sorted(below(folder), key=lambda v: [int(n) for n in v.split(".")])
  if match.group(3):
    versions = [v for v in versions if v == match.group(3)]
  if not versions:
    known = [n for n in (os.listdir(base) if os.path.isdir(base) else []) if os.path.isdir(os.path.join(base, n))]
    raise Missing(f"no TFDS data set {name} in {folder}{nearest(parts[0], known)}")
  return os.path.join(folder, versions[-1])


def below(folder: str) -> list[str]:
  """The version folders in a folder."""
  names = os.listdir(folder) if os.path.isdir(folder) else []
  wanted = re.compile(r"\d+\.\d+\.\d+")
  return [n for n in names if wanted.fullmatch(n) and os.path.exists(os.path.join(folder, n, "dataset_info.json"))]


@dataclasses.dataclass(frozen=True)
class Prepared:
  """What the metadata of a set say: the feature that is the picture, the one that is the label (None: there is
  none) and its names; splits: {name: (template of the files' names, records of every shard)}."""

  folder: str
  name: str
  version: str
  image: str
  label: str | None
  names: tuple[str, ...]
  splits: dict[str, tuple[str, tuple[int, ...]]]

  def shards(self, split: str) -> list[tuple[str, int]]:
    """[(path, records)] of a split. Raises UserError where a name leads out of the folder."""
    template, counts = self.splits[split]
    names = shard_names(template, self.name, split, len(counts))
    return [(os.path.join(self.folder, name), count) for name, count in zip(names, counts, strict=True)]


def read_metadata(folder: str) -> Prepared:
  """Reads the JSON beside the records, believing nothing. Raises UserError."""
  features = load_json(os.path.join(folder, "features.json"))
  info = load_json(os.path.join(folder, "dataset_info.json"))
  try:
    form = info.get("fileFormat", "tfrecord")
    if form != "array_record":
      raise UserError(
        f"{folder} holds {str(form)[:40]} files, which need TensorFlow; prepare it with file_format='array_record'"
      )
    features = features["featuresDict"]["features"]
    image, label, names = read_features(folder, features, info)
    splits = {str(split["name"]): read_split(split, folder) for split in info["splits"]}
    return Prepared(folder, str(info["name"]), str(info["version"]), image, label, names, splits)
  except (ValueError, KeyError, TypeError, AttributeError) as error:
    raise UserError(f"cannot read the TFDS data set in {folder}: {first_line(error)} in its metadata") from error


def load_json(path: str) -> Any:
  """A file of metadata. Raises UserError."""
  try:
    with open(path, "rb") as file:
      text = file.read(METADATA + 1)
    if len(text) > METADATA:
      raise UserError(f"{path} is larger than {METADATA >> 20} MiB: no metadata of a TFDS data set")
    return json.loads(text)
  except (OSError, ValueError, RecursionError) as error:
    raise UserError(f"cannot read the TFDS data set: {path}: {first_line(error)}") from error


def read_split(split: dict[str, Any], folder: str) -> tuple[str, tuple[int, ...]]:
  """(template of the shards' file names, records of each)."""
  template = split.get("filepathTemplate") or "{DATASET}-{SPLIT}.{FILEFORMAT}-{SHARD_X_OF_Y}"
  if not isinstance(template, str) or not isinstance(split.get("shardLengths", []), list):
    raise UserError(f"cannot read the TFDS data set in {folder}: its splits are described in another way")
  counts = tuple(whole(count, f"{folder}: the length of a shard") for count in split.get("shardLengths", []))
  if sum(counts) >= 2**31:
    raise UserError(f"{folder}: {sum(counts)} examples are more than an index can count")
  return template, counts


def read_features(folder: str, features: Any, info: Any) -> tuple[str, str | None, tuple[str, ...]]:
  """(image feature, label feature or None, label names)."""
  kinds = {key: str(value.get("pythonClassName", "")).rsplit(".", 1)[-1] for key, value in features.items()}
  image = next((key for key, kind in kinds.items() if kind == "Image"), None)
  if image is None:
    raise UserError(f"the data set in {folder} has no Image feature, only {', '.join(kinds)[:200]}")
  pair = info.get("supervisedKeys", {}).get("tuple", {}).get("items", [])
  wanted = [item.get("featureKey") for item in pair[1:]] + ["label", *kinds]
  label = next((key for key in wanted if isinstance(key, str) and kinds.get(key) == "ClassLabel"), None)
  if label is None:
    return image, None, ()
  count = whole(features[label]["classLabel"]["numClasses"], f"{folder}: the number of classes")
  if count > CLASSES:
    raise UserError(f"{folder}: {count} classes are more than {CLASSES}")
  names = tuple(str(n) for n in range(count))
  path = os.path.join(folder, f"{label}.labels.txt")
  if re.fullmatch(r"\w[\w.-]*", label) and os.path.isfile(path):  # else the name could lead elsewhere
    with open(path, encoding="utf-8") as file:
      lines = tuple(line for line in file.read(METADATA).split("\n") if line)
    names = lines if len(lines) == count else names
  return image, label, names


def one(found: dict[str, Any], name: str, kind: type) -> Any:
  """The only value of a feature. Raises Broken."""
  values = found.get(name, [])
  if len(values) != 1 or not isinstance(values[0], kind):
    raise Broken(f"has no single value of the feature {name!r}")
  return values[0]


def open_split(split: Split, found: Prepared) -> Shards:
  """The records of a split, by any of its common names. Where a test split has no labels (ImageNet's are all -1) and a
  validation split is there, that is taken, with a warning. Raises UserError when there is none."""
  wanted = ("train",) if split == "train" else ("test", "validation")
  names = sorted(found.splits, key=lambda name: (name not in wanted, name))
  names = [n for kind in wanted for n in names if kind_of(n) == kind and sum(found.splits[n][1])]
  for name in names:
    shards = Shards(found.shards(name))
    if name == names[-1] or found.label is None or labelled(shards[0], found):
      return shards
    warnings.warn(f"{found.folder}: the {name} split has no labels, so another is used", stacklevel=2)
  there = ", ".join(found.splits)[:200] or "none"
  raise UserError(f"no {' or '.join(wanted)} split in {found.folder}: it has {there}")


def labelled(record: bytes, found: Prepared) -> bool:
  """Whether a record has one of the labels of its set."""
  assert found.label is not None
  try:
    return 0 <= one(example(record, (found.label,)), found.label, int) < len(found.names)
  except Broken:
    return False
