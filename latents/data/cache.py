"""Latents of a frozen first stage, encoded once and read many times by the second stage."""

import contextlib
import dataclasses
import functools
import json
import os
import shutil
import tempfile
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import numpy as np

from latents.data.source import Arrays, Example, Records, Source, Split
from latents.errors import UserError

FORMAT = 1
SIDE = "side/"  # what the names of arrays beside "stored" begin with


def write_cache(
  folder: str,
  batches: Iterable[Mapping[str, Any]],
  *,
  split: Split,
  count: int,
  fingerprint: str,
  statistics: Mapping[str, Any],
  names: Sequence[str] = (),
) -> str:
  """Writes `folder`/`split` and returns that path; it appears whole or not at all, and replaces an older one.

  batches: dicts with "stored" [B,2,*s,..] (an example and its mirror image; float -> float32, integer ->
  int32), "side/NAME" [B,2,..] for all that stands beside it, "label" int [B] when there are labels, and optionally
  "mask" bool [B] (False rows are padding).
  count: the examples that must come. statistics: JSON values of the first stage, e.g. mean and std.
  fingerprint: what the first stage's parameters hash to. names: of the labels.
  """
  os.makedirs(folder, exist_ok=True)
  temporary = tempfile.mkdtemp(prefix=f".{split}-", dir=folder)
  try:
    kept, labelled = write_arrays(temporary, batches, count)
    shape, dtype = kept.pop("stored")
    manifest = {
      "format": FORMAT,
      "fingerprint": fingerprint,
      "split": split,
      "count": count,
      "shape": list(shape),
      "dtype": dtype,
      "labelled": labelled,
      "names": list(names),
      "statistics": dict(statistics),
    }
    if kept:
      manifest["side"] = {name: {"shape": list(size), "dtype": kind} for name, (size, kind) in kept.items()}
    with open(os.path.join(temporary, "manifest.json"), "w") as file:
      json.dump(manifest, file, indent=1, allow_nan=False)
    os.chmod(temporary, 0o755)  # mkdtemp makes folders that only their owner may read
    final = os.path.join(folder, split)
    shutil.rmtree(final, ignore_errors=True)
    os.replace(temporary, final)
    return final
  except BaseException:
    shutil.rmtree(temporary, ignore_errors=True)
    with contextlib.suppress(OSError):
      os.rmdir(folder)  # if it was made for this
    raise


def write_arrays(
  folder: str, batches: Iterable[Mapping[str, Any]], count: int
) -> tuple[dict[str, tuple[tuple[int, ...], str]], bool]:
  """Fills a file an array and label.npy as the batches come: (name -> shape and dtype of one, whether labelled)."""
  arrays: dict[str, Any] = {}
  label, filled = None, 0
  for batch in batches:
    rows = np.asarray(batch.get("mask", np.ones(len(batch["stored"]), bool)))
    values = {name: np.asarray(batch[name])[rows] for name in batch if name == "stored" or name.startswith(SIDE)}
    if not arrays:
      if values["stored"].ndim < 3 or values["stored"].shape[1] != 2:
        raise ValueError(f"stored must be [B,2,*s,..], got {values['stored'].shape}")
      for name, value in values.items():
        dtype = np.dtype(np.int32 if np.issubdtype(value.dtype, np.integer) else np.float32)
        arrays[name] = create(os.path.join(folder, file_of(name)), (count, *value.shape[1:]), dtype)
      if "label" in batch:
        label = create(os.path.join(folder, "label.npy"), (count,), np.dtype(np.int32))
    number = len(values["stored"])
    if filled + number > count:
      raise ValueError(f"more than the {count} examples that were announced")
    for name, array in arrays.items():
      if array.dtype.kind == "f" and not np.isfinite(values[name]).all():
        raise UserError(f"the first stage gives latents that are not finite (examples from {filled} on)")
      array[filled : filled + number] = values[name]
    if label is not None:
      label[filled : filled + number] = np.asarray(batch["label"])[rows]
    filled += number
  if not arrays or filled != count:
    raise ValueError(f"{filled} of the {count} announced examples came")
  for array in [*arrays.values(), *([] if label is None else [label])]:
    array.flush()
  return {name: (array.shape[2:], array.dtype.name) for name, array in arrays.items()}, label is not None


def file_of(name: str) -> str:
  """The file of an array of a cache by its name in a batch."""
  return f"{name.replace('/', '-')}.npy"


def create(path: str, shape: tuple[int, ...], dtype: np.dtype[Any]) -> Any:
  """A new memory-mapped .npy file."""
  array = np.lib.format.open_memmap(path, mode="w+", dtype=dtype, shape=shape)
  if hasattr(os, "posix_fallocate"):
    with open(path, "r+b") as file:  # a page that finds no room later would kill the process without a word
      os.posix_fallocate(file.fileno(), 0, os.path.getsize(path))
  return array


@dataclasses.dataclass(frozen=True)
class CachedLatents(Source):
  """The cache below `folder`, as a source of "stored" [*s,..] instead of "x". Records hold both mirrored
  copies: "stored" [2,*s,..], and "label". With `flip` training reads one of the two at random, else the
  plain one: a mirrored digit is no digit.

  fingerprint: the first stage it must come from; "" = any. Raises UserError when it comes from another, or
  is missing or damaged.
  """

  folder: str = dataclasses.field(metadata={"address": False})
  fingerprint: str = ""
  flip: bool = True

  @property
  def keys(self) -> tuple[str, ...]:  # pyright: ignore[reportIncompatibleVariableOverride]
    """ "stored", and what stands beside it."""
    return tuple(self.kept)

  @functools.cached_property
  def manifest(self) -> dict[str, Any]:
    """Of the train split, else of the test split."""
    missing = not os.path.exists(os.path.join(self.folder, "train", "manifest.json"))
    return read_manifest(self.folder, "test" if missing else "train", self.fingerprint)

  @property
  def shape(self) -> tuple[int, ...]:
    """Of one stored latent, [*s,..]."""
    return tuple(self.manifest["shape"])

  @property
  def names(self) -> tuple[str, ...]:
    """The label names."""
    return tuple(self.manifest["names"])

  @property
  def kept(self) -> dict[str, tuple[tuple[int, ...], np.dtype]]:
    """Shape and dtype of one stored latent, and of what stands beside it, by their names in a batch."""
    return kept(self.manifest)

  @property
  def statistics(self) -> dict[str, Any]:
    """Of the first stage, as written."""
    return self.manifest["statistics"]

  def contents(self) -> Iterable[str]:
    """The first stage that the latents come from, and how many there are."""
    return [f"{self.manifest[key]}" for key in ("fingerprint", "split", "count", "shape", "dtype")]

  def records(self, split: Split) -> Records:
    """As `Source.records`."""
    manifest = read_manifest(self.folder, split, self.fingerprint)
    arrays = {
      name: open_array(os.path.join(self.folder, split, file_of(name)), (manifest["count"], 2, *shape), dtype.name)
      for name, (shape, dtype) in kept(manifest).items()
    }
    if manifest["labelled"]:
      arrays["label"] = open_array(os.path.join(self.folder, split, "label.npy"), (manifest["count"],), "int32")
    return Arrays(**arrays)

  def augment(self, example: Example, rng: np.random.Generator, train: bool) -> Example:
    """One of the two mirrored copies."""
    copy = int(rng.integers(2)) if train and self.flip else 0
    return {**example, **{name: example[name][copy] for name in self.keys}}


def kept(manifest: Mapping[str, Any]) -> dict[str, tuple[tuple[int, ...], np.dtype]]:
  """Shape and dtype of every array of one example but the label, by its name in a batch."""
  every = {"stored": manifest, **manifest.get("side", {})}
  return {name: (tuple(one["shape"]), np.dtype(one["dtype"])) for name, one in every.items()}


def read_manifest(folder: str, split: Split, fingerprint: str) -> dict[str, Any]:
  """The checked manifest of a split. Raises UserError."""
  path = os.path.join(folder, split, "manifest.json")
  try:
    with open(path) as file:
      manifest = json.load(file)
  except FileNotFoundError as error:
    raise UserError(f"no latent cache of the {split} split in {folder}") from error
  except (OSError, ValueError, RecursionError) as error:
    raise UserError(f"{path} is not a manifest of a latent cache") from error
  if not sound(manifest):
    raise UserError(f"{path} is not a manifest of a latent cache (format {FORMAT})")
  if fingerprint and manifest["fingerprint"] != fingerprint:
    found = manifest["fingerprint"]
    raise UserError(f"the latent cache in {folder} comes from another first stage ({found}, not {fingerprint})")
  return manifest


def sound(manifest: Any) -> bool:
  """Whether a manifest has all that is read from it, of the right types."""
  if not isinstance(manifest, dict) or manifest.get("format") != FORMAT:
    return False
  wanted = {"fingerprint": str, "dtype": str, "labelled": bool, "names": list, "shape": list, "statistics": dict}
  if not all(isinstance(manifest.get(key), kind) for key, kind in wanted.items()):
    return False
  side = manifest.get("side", {})
  if not isinstance(side, dict) or not all(map(_sound_side, side.items())):
    return False
  numbers = [manifest.get("count"), *manifest["shape"], *(n for one in side.values() for n in one["shape"])]
  whole = all(isinstance(n, int) and not isinstance(n, bool) and 0 < n < 2**40 for n in numbers)
  names = all(isinstance(name, str) for name in manifest["names"])
  return whole and names and manifest["dtype"] in ("float32", "int32")


def _sound_side(item: tuple[str, Any]) -> bool:
  name, one = item
  named = name.startswith(SIDE) and name.removeprefix(SIDE).isidentifier()  # it becomes a file's name
  shaped = isinstance(one, dict) and isinstance(one.get("shape"), list) and one.get("dtype") in ("float32", "int32")
  return named and shaped


def open_array(path: str, shape: tuple[int, ...], dtype: str) -> np.ndarray:
  """Memory-maps an array and compares it with the manifest. Raises UserError."""
  try:
    array = np.load(path, mmap_mode="r", allow_pickle=False)
  except Exception as error:
    raise UserError(f"{path} is missing or damaged: write the latent cache again") from error
  if array.shape != shape or array.dtype != np.dtype(dtype):
    raise UserError(f"{path} holds {array.dtype} {array.shape}, the manifest says {dtype} {shape}")
  return array
