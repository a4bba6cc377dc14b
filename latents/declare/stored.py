"""The JSON of a declaration, which is stored with every run and rebuilt from it.

It is untrusted input: `from_json` builds classes of `latents`, and those that the user has named in this process
(`admit`): parts that stand in an experiment file of one's own.
"""

import dataclasses
import importlib
import json
import math
import types
import typing
from collections.abc import Iterable, Iterator, Mapping
from typing import Any, Literal

import flax.linen as nn

from latents.declare.moved import first_name, present_name
from latents.declare.stages import Evaluation, Experiment, Mesh, Stage1, Stage2
from latents.errors import UserError, first_line

DEPTH = 60  # of the nesting of a stored experiment
_own: dict[str, type] = {}  # parts outside `latents` by their stored names
Json = Any  # None | bool | int | float | str | list | dict
Form = Literal["text", "address", "former"]


def admit(parts: Iterable[type]) -> None:
  """Let stored declarations name these dataclasses of one's own from now on; classes of `latents` are known anyway."""
  _own.update({first_name(part): part for part in parts if dataclasses.is_dataclass(part) and _foreign(part)})


def own_parts(x: Any) -> set[type]:
  """The classes in a declaration that do not stand in `latents`."""
  if dataclasses.is_dataclass(x) and not isinstance(x, type):
    inside = [getattr(x, f.name, None) for f in dataclasses.fields(x) if f.init and f.name not in ("parent", "name")]
    return ({type(x)} if _foreign(type(x)) else set()).union(*map(own_parts, inside))
  values = x.values() if isinstance(x, Mapping) else x if isinstance(x, tuple) else ()
  return set().union(*map(own_parts, values))


def _foreign(part: type) -> bool:
  return part.__module__.split(".")[0] != "latents"


def to_json(x: Any, form: Form = "text", seen: set[int] | None = None) -> Json:
  """Tree of dataclasses -> JSON types. TypeError for what could not be rebuilt.

  form: "text" is what is stored; "address" is what makes a stage what it is; "former" is what did so before 2026-12,
  when the paths of data were a part of it.
  A module that stands in two places is refused: JSON would make two of it, with two sets of params.
  """
  seen = set() if seen is None or isinstance(x, Stage1 | Stage2) else seen  # each stage has its own parameters
  if dataclasses.is_dataclass(x) and not isinstance(x, type):
    if isinstance(x, nn.Module):
      if id(x) in seen:
        raise ValueError(f"{type(x).__name__} stands in two places of the experiment; build it twice")
      seen.add(id(x))
    body = {f.name: to_json(getattr(x, f.name), form, seen) for f in _fields(x, form)}
    edition = getattr(type(x), "edition", 1)
    return {"!": first_name(type(x)), **body, **({"!edition": edition} if edition > 1 and form != "text" else {})}
  if isinstance(x, tuple):
    return [to_json(v, form, seen) for v in x]
  if isinstance(x, Mapping):
    return {k: to_json(v, form, seen) for k, v in x.items()}
  if isinstance(x, float) and not math.isfinite(x):
    raise UserError(f"an experiment cannot hold the number {x}")
  if x is None or isinstance(x, bool | int | float | str):
    return x
  raise TypeError(f"an experiment cannot hold {type(x).__name__} {x!r}: use numbers, strings, tuples, parts")


def _fields(x: Any, form: Form) -> Iterator[dataclasses.Field]:
  """The fields of a part that a form has."""
  skip = ("parent", "name") if isinstance(x, nn.Module) else ()
  for f in dataclasses.fields(x):
    told = form == "text" or f.metadata.get("address", True) or (form == "former" and f.metadata.get("former", False))
    if f.init and f.name not in skip and told and not _neutral(f, getattr(x, f.name)):
      yield f


def _neutral(field: dataclasses.Field, value: Any) -> bool:
  """Whether a field that was added later (`types.later`) says what its absence said."""
  neutral = field.metadata.get("neutral", dataclasses.MISSING)
  return neutral is not dataclasses.MISSING and type(value) is type(neutral) and value == neutral


def from_json(x: Json, depth: int = 0) -> Any:
  """JSON types -> tree of dataclasses of `latents`. UserError for anything else."""
  if depth > DEPTH:
    raise UserError(f"the stored experiment is nested deeper than {DEPTH}: refused")
  if isinstance(x, list):
    return tuple(from_json(v, depth + 1) for v in x)
  if not isinstance(x, dict):
    return x
  values = {k: from_json(v, depth + 1) for k, v in x.items() if k != "!"}
  if "!" not in x:
    return values
  return _part(x["!"])(**_known(x["!"], values))


def _part(path: Json) -> type:
  """'latents.x:Class' -> the dataclass; nothing else outside `latents` than `admit` has named, no functions, no
  attributes of modules."""
  if str(path) in _own:
    return _own[str(path)]
  module, _, name = present_name(str(path)).partition(":")
  if module.split(".")[0] != "latents" or not all(p.isidentifier() for p in module.split(".")):
    raise UserError(
      f"the stored experiment names {path!r}, which is not a part of latents: refused (if it is yours, "
      "say where it stands: --experiment FILE, or latents.load(run, parts=[..]))"
    )
  try:
    found = getattr(importlib.import_module(module), name)
  except (ImportError, AttributeError):
    raise UserError(f"the stored experiment names {path!r}, which this version of latents lacks") from None
  if not (isinstance(found, type) and dataclasses.is_dataclass(found) and found.__module__ == module):
    raise UserError(f"the stored experiment names {path!r}, which is not a part of latents: refused")
  return found


def _known(path: str, values: dict[str, Any]) -> dict[str, Any]:
  fields = {f.name: f.type for f in dataclasses.fields(_part(path)) if f.init}
  for name, value in values.items():
    if name not in fields or (name in ("parent", "name") and issubclass(_part(path), nn.Module)):
      raise UserError(f"the stored experiment gives {path} a field '{name[:80]}', which it lacks")
    if not _fits(value, fields[name]):
      raise UserError(f"the stored experiment gives {path} for '{name}' what does not fit: {str(value)[:60]!r}")
  absent = {f.name: f.metadata["neutral"] for f in dataclasses.fields(_part(path)) if "neutral" in f.metadata}
  return {**absent, **values}


def _fits(x: Any, kind: Any) -> bool:
  """Whether a value is of an annotated type, as far as scalars, tuples, mappings and unions of them say."""
  origin, inner = typing.get_origin(kind), typing.get_args(kind)
  if origin in (typing.Union, types.UnionType):
    return any(_fits(x, k) for k in inner)
  if origin is typing.Literal:
    return any(type(x) is type(value) and x == value for value in inner)
  if origin is tuple:
    kinds = inner[:1] * len(x) if isinstance(x, tuple) and inner[1:] == (...,) else inner
    return isinstance(x, tuple) and len(x) == len(kinds) and all(map(_fits, x, kinds))
  if origin is Mapping:
    return isinstance(x, Mapping) and all(_fits(v, inner[1]) for v in x.values())
  if kind in (int, float):
    return isinstance(x, int if kind is int else int | float) and not isinstance(x, bool)
  if not isinstance(kind, type) or kind is object:
    return True
  return isinstance(x, kind) if kind in (bool, str, type(None)) else not isinstance(x, str | int | float | None)


def loads(text: str, where: str) -> Experiment:
  """The text of an `experiment.json` -> Experiment. UserError naming `where` if it is not one."""
  try:
    made = from_json(json.loads(text))
  except (ValueError, TypeError, RecursionError) as error:
    raise UserError(f"{where} is not a stored experiment: {first_line(error)}") from None
  if not isinstance(made, Experiment):
    raise UserError(f"{where} does not hold an experiment")
  parts = ((made.stage1, Stage1), (made.stage2, Stage2 | None), (made.mesh, Mesh), (made.evaluation, Evaluation))
  if not isinstance(made.name, str) or not all(isinstance(part, kind) for part, kind in parts):
    raise UserError(f"{where} does not hold an experiment: a stage of it is something else")
  return made


def dumps(experiment: Experiment) -> str:
  """Experiment -> the text of `experiment.json`, readable and diffable."""
  return json.dumps(to_json(experiment), indent=1) + "\n"


def differences(a: Json, b: Json, path: str = "") -> list[str]:
  """Dotted paths at which two declarations differ, with both values, for messages."""
  if isinstance(a, dict) and isinstance(b, dict):
    keys = dict.fromkeys([*a, *b])
    return [d for k in keys for d in differences(a.get(k), b.get(k), f"{path}.{k}" if path else str(k))]
  return [] if a == b else [f"{path}: {_short(a)} -> {_short(b)}"]


def _short(x: Json) -> str:
  text = json.dumps(x)
  return text if len(text) <= 40 else text[:37] + "..."
