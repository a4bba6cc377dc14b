"""What a finished stage leaves: weights as safetensors and a JSON of facts, readable on any topology.

The fingerprint is the SHA-256 of the names, shapes and bytes of the weights together with the stage's
address and its latent statistics. A stage 2 and a latent cache carry the fingerprint of the stage 1 they belong to.
"""

import dataclasses
import functools
import hashlib
import json
import math
import os
import weakref
from collections.abc import MutableMapping
from pathlib import Path
from typing import Any

import numpy as np
from safetensors.numpy import load_file, save_file

from latents.errors import UserError, first_line

WEIGHTS, LOSSES, AVERAGES = "weights.safetensors", "losses.safetensors", "averages.safetensors"
FACTS, RECODE = "artefact.json", "recode.safetensors"


@dataclasses.dataclass(frozen=True)
class Artefact:
  """weights: {"path/of/array": float32 numpy}. facts: JSON, with "address" and "fingerprint"."""

  weights: dict[str, np.ndarray]
  facts: dict[str, Any]

  @property
  def fingerprint(self) -> str:
    """The identity of these weights."""
    return self.facts["fingerprint"]

  @functools.cached_property
  def latents(self) -> str:
    """The identity of the latents of a stage 1: of its statistics and all that is no decoder (of the model or of one of
    its two models), whatever decodes them."""
    made = {n: a for n, a in self.weights.items() if "decoder" not in n.split("/")[1:3]}
    return fingerprint(made, {"statistics": self.facts.get("statistics")})


def fingerprint(weights: dict[str, np.ndarray], facts: dict[str, Any]) -> str:
  """SHA-256 over the address, the statistics and every array's name, shape, dtype and bytes."""
  told = {key: facts.get(key) for key in ("address", "statistics")}
  hasher = hashlib.sha256(json.dumps(told, sort_keys=True).encode())
  for name in sorted(weights):
    array = np.asarray(weights[name], order="C")  # ascontiguousarray would make a scalar a vector
    hasher.update(f"{name}{array.shape}{array.dtype}".encode())
    hasher.update(array.tobytes())
  return hasher.hexdigest()


Arrays = dict[str, np.ndarray]
_hashed: dict[tuple, str] = {}  # a file as it was -> its fingerprint
_held: MutableMapping[tuple, Artefact] = weakref.WeakValueDictionary()  # a file as it was -> what somebody still holds


def write(
  folder: Path, weights: Arrays, facts: dict[str, Any], losses: Arrays | None = None, averages: Arrays | None = None,
  recode: Arrays | None = None,
) -> Artefact:  # fmt: skip
  """Write all files; the facts come last and by a rename, so an artefact is complete or absent.

  losses: the networks that belong to the stage's losses ("NAME/params/..."), in a file of their own: a stage that goes
  on from this one may begin with them, and nothing else needs them. averages: other averages of the same weights
  ("average/NAME/params/..."), in a file of their own too: who does not ask for one does not read it. recode: the merge
  table whose tokens a prior models.
  """
  weights = {name: np.asarray(array, order="C") for name, array in weights.items()}
  facts = {**facts, "fingerprint": fingerprint(weights, facts)}
  folder.mkdir(parents=True, exist_ok=True)
  _save(folder / WEIGHTS, weights)
  if losses:
    losses = {name: np.asarray(array, order="C") for name, array in losses.items()}
    facts["losses"] = fingerprint(losses, {})
    _save(folder / LOSSES, losses)
  if averages:
    averages = {name: np.asarray(array, order="C") for name, array in averages.items()}
    facts["averages"] = fingerprint(averages, {})
    _save(folder / AVERAGES, averages)
  if recode:
    facts["recode"] = fingerprint(recode, {})
    _save(folder / RECODE, recode)
  write_json(folder / FACTS, facts)
  _hashed[_seen(folder / WEIGHTS, facts)] = facts["fingerprint"]
  return Artefact(weights, facts)


def read(folder: Path) -> Artefact | None:
  """The artefact in `folder`; None if the stage is not finished; UserError if it is damaged."""
  if not (folder / FACTS).exists():
    return None
  facts = facts_of(folder)
  path = folder / WEIGHTS
  seen = _seen(path, facts)  # before it is read: what replaces it meanwhile is another file
  if (made := _held.get(seen)) is not None and made.facts == facts:
    return made
  weights = _load(path)
  if seen not in _hashed:
    _hashed[seen] = fingerprint(weights, facts)
  if _hashed[seen] != facts.get("fingerprint"):
    raise UserError(f"{path} is damaged or not this stage's: its fingerprint does not match {FACTS}")
  made = _held[seen] = Artefact(weights, facts)
  return made


def _seen(path: Path, facts: dict[str, Any]) -> tuple:
  """What tells a file as it is now from every other one: a run asks for a stage at every turn, and to hash a large
  model takes seconds. Files are replaced, never written in place."""
  try:
    there = path.stat()
  except OSError as error:
    raise UserError(f"{path} cannot be read: {error.strerror}") from None
  told = json.dumps([facts.get("address"), facts.get("statistics")])
  return there.st_dev, there.st_ino, there.st_size, there.st_mtime_ns, told


def facts_of(folder: Path) -> dict[str, Any]:
  """The facts of a finished stage, without its weights."""
  facts = read_json(folder / FACTS)
  _check_facts(facts, folder / FACTS)
  return facts


def read_losses(folder: Path) -> Arrays:
  """The networks of a finished stage's losses, "NAME/params/..."; {} where there are none."""
  facts = facts_of(folder)
  if "losses" not in facts:
    return {}
  found = _load(folder / LOSSES)
  if fingerprint(found, {}) != facts["losses"]:
    raise UserError(f"{folder / LOSSES} is damaged or not this stage's: its fingerprint does not match {FACTS}")
  return found


def read_arrays(path: Path) -> Arrays:
  """The arrays of a file. UserError where it cannot be read."""
  return _load(path)


def write_arrays(path: Path, arrays: Arrays) -> None:
  """Write arrays to a file, whole or not at all; its folder is made."""
  path.parent.mkdir(parents=True, exist_ok=True)
  _save(path, arrays)


def read_recode(folder: Path) -> Arrays:
  """The merge table of a finished stage 2 whose prior models merged tokens."""
  facts, found = facts_of(folder), _load(folder / RECODE)
  if fingerprint(found, {}) != facts.get("recode"):
    raise UserError(f"{folder / RECODE} is damaged or not this stage's: its fingerprint does not match {FACTS}")
  return found


def with_average(made: Artefact, folder: Path, name: str) -> Artefact:
  """The artefact in `folder` with the average of that name in place of its weights; as it is for "", or where the
  stage has none of that name. UserError where the file is damaged. The facts, and the statistics of latents among
  them, stay those of the weights."""
  if not name or "averages" not in made.facts:
    return made
  start = f"average/{name}/"
  every = _averages(folder, made.facts)
  found = {key.removeprefix(start): array for key, array in every.items() if key.startswith(start)}
  return dataclasses.replace(made, weights={**made.weights, **found}) if found else made


def _averages(folder: Path, facts: dict[str, Any]) -> Arrays:
  every = _load(folder / AVERAGES)
  if fingerprint(every, {}) != facts["averages"]:
    raise UserError(f"{folder / AVERAGES} is damaged or not this stage's: its fingerprint does not match {FACTS}")
  return every


def add_average(folder: Path, name: str, arrays: Arrays) -> None:
  """Put an average of the weights, {"params/...": array}, beside those that a finished stage has. Killed between the
  two renames, the stage says that its averages are damaged; its weights are not touched."""
  facts = facts_of(folder)
  every = _averages(folder, facts) if "averages" in facts else {}
  every |= {f"average/{name}/{key}": np.asarray(array, order="C") for key, array in arrays.items()}
  _save(folder / AVERAGES, every)
  write_json(folder / FACTS, {**facts, "averages": fingerprint(every, {})})


def _save(path: Path, arrays: Arrays) -> None:
  temporary = path.with_name(path.name + ".tmp")
  save_file(arrays, temporary)
  temporary.chmod(0o644)  # safetensors makes files that only their owner may read
  os.replace(temporary, path)


def _load(path: Path) -> Arrays:
  try:
    return load_file(path)
  except Exception as error:  # noqa: BLE001  (the file is untrusted, and its reader raises what it likes)
    raise UserError(f"{path} cannot be read: {first_line(error)}") from None


def _check_facts(facts: Any, path: Path) -> None:
  """The facts that are read later are there and of their types."""
  if not isinstance(facts, dict) or not all(isinstance(facts.get(k), str) for k in ("address", "fingerprint")):
    raise UserError(f"{path} does not hold the facts of a stage")
  statistics = facts.get("statistics", {"mean": [], "std": []})
  for key in ("mean", "std"):
    values = statistics.get(key) if isinstance(statistics, dict) else None
    if not _numbers(values, -1e30 if key == "mean" else 0.0):
      raise UserError(f"{path}: its statistics have no {key} of numbers")
  if not _number(facts.get("seconds", 0)):
    raise UserError(f"{path}: its seconds are no number")


def _numbers(x: Any, above: float, axes: int = 8) -> bool:
  """Whether x is a number above `above`, or an array of such of at most `axes` axes, as lists of lists."""
  if not isinstance(x, list):
    return _number(x) and x > above
  if not axes or not all(_numbers(value, above, axes - 1) for value in x):
    return False
  try:
    np.asarray(x, np.float64)
  except ValueError:  # ragged
    return False
  return True


def _number(x: Any) -> bool:
  return isinstance(x, int | float) and not isinstance(x, bool) and -1e30 < x < 1e30


def check_shapes(where: str, weights: dict[str, Any], wanted: dict[str, Any]) -> None:
  """The same names and shapes, or a UserError that names the first difference."""
  for word, names in (("lacks", set(wanted) - set(weights)), ("has the unknown", set(weights) - set(wanted))):
    if names:
      raise UserError(f"{where} {word} array {sorted(names)[0]} ({len(names)} in all)")
  for name in sorted(wanted):
    if tuple(weights[name].shape) != tuple(wanted[name].shape):
      found, need = tuple(weights[name].shape), tuple(wanted[name].shape)
      raise UserError(f"{where} has {name} of shape {found}, the experiment needs {need}")


def write_json(path: Path, value: Any) -> None:
  """Write JSON whole or not at all; numbers that JSON lacks (nan, inf) become null."""
  temporary = path.with_name(path.name + ".tmp")
  temporary.write_text(json.dumps(_finite(value), indent=1, allow_nan=False) + "\n")
  os.replace(temporary, path)


def _finite(value: Any) -> Any:
  if isinstance(value, dict):
    return {k: _finite(v) for k, v in value.items()}
  if isinstance(value, list | tuple):
    return [_finite(v) for v in value]
  return None if isinstance(value, float) and not math.isfinite(value) else value


def read_json(path: Path) -> Any:
  """Read JSON; UserError naming the file if it is missing or broken."""
  try:
    return json.loads(path.read_text())
  except FileNotFoundError:
    raise UserError(f"{path} does not exist") from None
  except (OSError, ValueError, RecursionError) as error:
    raise UserError(f"{path} cannot be read: {first_line(error)}") from None
