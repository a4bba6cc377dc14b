"""Prepared TFDS data sets in ArrayRecord files, read without TensorFlow."""

import dataclasses
import functools
import json
import os
import re
from typing import Any

import numpy as np

from latents.data.images import crop_and_flip, read_image
from latents.data.source import Broken, Decoded, Example, Records, Source, Split
from latents.errors import UserError, nearest


@dataclasses.dataclass(frozen=True)
class Tfds(Source):
  """`name` is name[/config][:version] below `data_dir` (None: $TFDS_DATA_DIR or ~/tensorflow_datasets).

  The picture is the first Image feature, the label the ClassLabel (of the supervised pair, if it names
  one). test is the split of that name, else validation. `resize` makes the short side `size` before the
  crop. Nothing is downloaded and no code of the data set is run. labels: their number, where it must be
  known before the data are at hand (planning); None reads it. A set with another number is refused.
  """

  name: str
  data_dir: str | None = dataclasses.field(default=None, metadata={"address": False})
  size: int = 64
  channels: int = 3
  resize: bool = True
  flip: bool = True
  labels: int | None = None

  @property
  def shape(self) -> tuple[int, ...]:
    """[H,W,C] after the crop."""
    return (self.size, self.size, self.channels)

  @functools.cached_property
  def folder(self) -> str:
    """Where the data set lies; looked for once."""
    return find(self.name, self.data_dir)

  @functools.cached_property
  def features(self) -> tuple[str, str | None, tuple[str, ...]]:
    """(name of the image feature, name of the label feature, label names)."""
    return read_features(self.folder)

  @property
  def names(self) -> tuple[str, ...]:
    """The label names."""
    return self.features[2]

  @property
  def classes(self) -> int:
    """The number of labels, declared or read."""
    return len(self.names) if self.labels is None else self.labels

  def records(self, split: Split) -> Records:
    """As `Source.records`."""
    if self.labels not in (None, len(self.names)):
      raise UserError(f"the data set in {self.folder} has {len(self.names)} labels, not {self.labels}")
    import tensorflow_datasets as tfds  # two seconds, which other sources need not wait

    try:
      builder = tfds.builder_from_directory(self.folder)
      name = pick_split(split, builder.info.splits, self.folder)
      skip: Any = {self.features[0]: tfds.decode.SkipDecoding()}
      data: Any = builder.as_data_source(split=name, decoders=skip)  # pyright: ignore[reportCallIssue]
    except (OSError, ValueError, KeyError, NotImplementedError) as error:
      raise UserError(f"cannot read the TFDS data set in {self.folder}: {first_line(error)}") from error
    if not len(data):
      raise UserError(f"the {name} split in {self.folder} is empty")
    return Decoded(len(data), functools.partial(self.read, data))

  def read(self, data: Any, i: int) -> Example:
    """Record i: "x" uint8 [H,W,C] before the crop, and "label" where there are labels."""
    image, label, _ = self.features
    record = data[i]
    try:
      x = read_image(bytes(record[image]), self.channels, self.size if self.resize else None)
    except Broken as error:
      raise Broken(f"record {i} of {self.name} ({error})") from error
    if min(x.shape[:2]) < self.size:
      raise Broken(f"record {i} of {self.name} ({x.shape[1]} x {x.shape[0]} is smaller than the crop)")
    return {"x": x, "label": np.int32(record[label])} if label else {"x": x}

  def augment(self, example: Example, rng: np.random.Generator, train: bool) -> Example:
    """As `Source.augment`: a random crop (and mirror image) in training."""
    return crop_and_flip(example, self.size, rng, train, self.flip)


def root(data_dir: str | None) -> str:
  """Where data sets are looked for."""
  return os.path.expanduser(data_dir or os.environ.get("TFDS_DATA_DIR") or "~/tensorflow_datasets")


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
    known = [
      n for n in (os.listdir(base) if os.path.isdir(base) else []) if os.path.isdir(os.path.join(base, n))
    ]
    raise UserError(f"no TFDS data set {name} in {folder}{nearest(parts[0], known)}")
  return os.path.join(folder, versions[-1])


def below(folder: str) -> list[str]:
  """The version folders in a folder."""
  names = os.listdir(folder) if os.path.isdir(folder) else []
  wanted = re.compile(r"\d+\.\d+\.\d+")
  return [
    n for n in names if wanted.fullmatch(n) and os.path.exists(os.path.join(folder, n, "dataset_info.json"))
  ]


def read_features(folder: str) -> tuple[str, str | None, tuple[str, ...]]:
  """Reads the JSON beside the records: (image feature, label feature or None, label names)."""
  try:
    with open(os.path.join(folder, "features.json")) as file:
      features = json.load(file)["featuresDict"]["features"]
    with open(os.path.join(folder, "dataset_info.json")) as file:
      info = json.load(file)
  except (OSError, ValueError, KeyError, TypeError) as error:
    raise UserError(f"cannot read the TFDS data set in {folder}: {first_line(error)}") from error
  if info.get("fileFormat") != "array_record":
    form = info.get("fileFormat", "tfrecord")
    raise UserError(
      f"{folder} holds {form} files, which need TensorFlow; prepare it with file_format='array_record'"
    )
  kinds = {key: value.get("pythonClassName", "").rsplit(".", 1)[-1] for key, value in features.items()}
  image = next((key for key, kind in kinds.items() if kind == "Image"), None)
  if image is None:
    raise UserError(f"the data set in {folder} has no Image feature, only {', '.join(kinds)}")
  pair = info.get("supervisedKeys", {}).get("tuple", {}).get("items", [])
  wanted = [item.get("featureKey") for item in pair[1:]] + ["label", *kinds]
  label = next((key for key in wanted if kinds.get(key) == "ClassLabel"), None)
  if label is None:
    return image, None, ()
  count = int(features[label]["classLabel"]["numClasses"])
  path = os.path.join(folder, f"{label}.labels.txt")
  names = tuple(str(n) for n in range(count))
  if os.path.exists(path):
    with open(path, encoding="utf-8") as file:
      lines = tuple(line for line in file.read().split("\n") if line)
    names = lines if len(lines) == count else names
  return image, label, names


def pick_split(split: Split, found: Any, folder: str) -> str:
  """The data set's own name of a split. Raises UserError when it has none."""
  wanted = ("train",) if split == "train" else ("test", "validation")
  for name in wanted:
    if name in found and found[name].num_examples:
      return name
  raise UserError(f"no {' or '.join(wanted)} split in {folder}: it has {', '.join(found) or 'none'}")


def first_line(error: Exception) -> str:
  """Of the message of an error."""
  return (str(error).strip() or type(error).__name__).splitlines()[0]
