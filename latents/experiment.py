"""The declaration: an experiment as one frozen tree of parts, its JSON, and its address.

The JSON is what is stored with every run and rebuilt from it. It is untrusted input: `from_json`
builds classes of `latents` alone. The address of a stage is the hash of its own declaration; fields
marked `metadata={"address": False}` (where data lie, how often to log, how to sample) do not enter it.
"""

import dataclasses
import hashlib
import importlib
import json
import math
import types
import typing
from collections.abc import Mapping
from typing import Any

import flax.linen as nn

from latents.autoencoder import Autoencoder
from latents.data import Source
from latents.errors import UserError, first_line
from latents.losses import Loss
from latents.optim import Adam
from latents.priors import Prior
from latents.types import aside

DEPTH = 60  # of the nesting of a stored experiment
Json = Any  # None | bool | int | float | str | list | dict


@dataclasses.dataclass(frozen=True)
class Mesh:
  """Devices along each axis; -1 = all that remain. The batch is split over data and fsdp.

  data: copies of the model. fsdp: parameters, optimiser and EMA split, gathered when used.
  tensor: widths of layers split.
  """

  data: int = -1
  fsdp: int = 1
  tensor: int = 1


@dataclasses.dataclass(frozen=True, kw_only=True)
class Stage1:
  """Training of the autoencoder.

  losses: by the name that is logged; each term of the model must have one.
  steps, batch: number of updates and global batch. microbatches: equal parts of the batch that are taken one
  after another, for the memory of one part. Gradients and logged values are means over the parts; a codebook's
  moving average goes on from part to part, and batch norm's statistics are a part's.
  ema: rate of the average that is kept and used (0 = none). log_every, save_every: steps between lines of the log
  and between checkpoints. workers: processes that load data (0 = threads). patience: updates in a row that may be
  skipped for being non-finite before the run stops.
  """

  data: Source
  model: Autoencoder
  losses: Mapping[str, Loss]
  steps: int
  batch: int
  microbatches: int = 1
  optimizer: Adam = Adam()
  ema: float = 0.999
  log_every: int = aside(10)
  save_every: int = aside(500)
  workers: int = aside(0)
  patience: int = aside(20)


@dataclasses.dataclass(frozen=True, kw_only=True)
class Stage2:
  """Training of the prior on the latents of the frozen stage 1.

  data: usually stage 1's; another crop or size where the autoencoder is used on larger grids.
  cache: encode the data once (both mirrored copies) instead of in every step. Others as `Stage1`.
  """

  data: Source
  prior: Prior
  steps: int
  batch: int
  microbatches: int = 1
  optimizer: Adam = Adam()
  ema: float = 0.9999
  cache: bool = False
  log_every: int = aside(10)
  save_every: int = aside(500)
  workers: int = aside(0)
  patience: int = aside(20)


@dataclasses.dataclass(frozen=True, kw_only=True)
class Evaluation:
  """What `latents evaluate` measures: numbers of held-out examples and of samples, and the batch.

  lpips: a file of LPIPS(squeeze) weights; without it LPIPS is left out. features: measure the distances
  on EfficientNet-Lite0 features; None = if its weights are installed (extra `perceptual`). classifier:
  have a classifier judge the samples' labels, and measure their distance from the training set (small
  images, seen as pixels; short sounds, heard as the energies of mel bands).
  """

  images: int = 300
  samples: int = 300
  batch: int = 100
  lpips: str | None = None
  features: bool | None = None
  classifier: bool = False


@dataclasses.dataclass(frozen=True, kw_only=True)
class Experiment:
  """One system: a stage 1, a stage 2 (or None), a seed, a mesh and what is measured."""

  name: str
  stage1: Stage1
  stage2: Stage2 | None
  seed: int = 0
  mesh: Mesh = aside(Mesh())
  evaluation: Evaluation = aside(Evaluation())


def check(experiment: Experiment) -> None:
  """UserError naming the first number of a declaration that no run can have."""
  least = {"steps": 0, "batch": 1, "microbatches": 1, "log_every": 1, "save_every": 1, "workers": 0, "patience": 1}
  for place, stage in (("stage1", experiment.stage1), ("stage2", experiment.stage2)):
    for name, low in least.items() if stage is not None else ():
      if getattr(stage, name) < low:
        raise UserError(f"{place}.{name} is {getattr(stage, name)}: it must be at least {low}")
    if stage is not None and stage.batch % stage.microbatches:
      raise UserError(f"{place}.batch is {stage.batch}: it does not divide into {stage.microbatches} microbatches")
    if stage is not None and not 0 <= stage.ema < 1:
      raise UserError(f"{place}.ema is {stage.ema}: it must be in [0, 1)")
  for name in ("images", "samples", "batch"):
    if getattr(experiment.evaluation, name) < 1:
      raise UserError(f"evaluation.{name} is {getattr(experiment.evaluation, name)}: it must be at least 1")
  if experiment.seed < 0:
    raise UserError(f"seed is {experiment.seed}: it must be at least 0")


def to_json(x: Any, *, address: bool = False, seen: set[int] | None = None) -> Json:
  """Tree of dataclasses -> JSON types. TypeError for what could not be rebuilt.

  A module that stands in two places is refused: JSON would make two of it, with two sets of params.
  """
  seen = set() if seen is None else seen
  if dataclasses.is_dataclass(x) and not isinstance(x, type):
    skip: tuple[str, ...] = ()
    if isinstance(x, nn.Module):
      if id(x) in seen:
        raise ValueError(f"{type(x).__name__} stands in two places of the experiment; build it twice")
      seen.add(id(x))
      skip = ("parent", "name")
    fields = [f for f in dataclasses.fields(x) if f.init and f.name not in skip]
    if address:
      fields = [f for f in fields if f.metadata.get("address", True)]
    body = {f.name: to_json(getattr(x, f.name), address=address, seen=seen) for f in fields}
    return {"!": f"{type(x).__module__}:{type(x).__qualname__}", **body}
  if isinstance(x, tuple):
    return [to_json(v, address=address, seen=seen) for v in x]
  if isinstance(x, Mapping):
    return {k: to_json(v, address=address, seen=seen) for k, v in x.items()}
  if isinstance(x, float) and not math.isfinite(x):
    raise UserError(f"an experiment cannot hold the number {x}")
  if x is None or isinstance(x, bool | int | float | str):
    return x
  raise TypeError(f"an experiment cannot hold {type(x).__name__} {x!r}: use numbers, strings, tuples, parts")


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
  """'latents.x:Class' -> the dataclass; nothing outside `latents`, no functions, no attributes of modules."""
  module, _, name = str(path).partition(":")
  if module.split(".")[0] != "latents" or not all(p.isidentifier() for p in module.split(".")):
    raise UserError(f"the stored experiment names {path!r}, which is not a part of latents: refused")
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
  return values


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


def digest(x: Json) -> str:
  """Ten hex digits of the SHA-256 of canonical JSON."""
  return hashlib.sha256(json.dumps(x, sort_keys=True).encode()).hexdigest()[:10]


def addresses(experiment: Experiment) -> tuple[str, str | None]:
  """The addresses of stage 1 and stage 2; stage 2's contains stage 1's, on whose latents it is trained."""
  one = digest([to_json(experiment.stage1, address=True), experiment.seed])
  if experiment.stage2 is None:
    return one, None
  return one, digest([to_json(experiment.stage2, address=True), experiment.seed, one])


def differences(a: Json, b: Json, path: str = "") -> list[str]:
  """Dotted paths at which two declarations differ, with both values, for messages."""
  if isinstance(a, dict) and isinstance(b, dict):
    keys = dict.fromkeys([*a, *b])
    return [d for k in keys for d in differences(a.get(k), b.get(k), f"{path}.{k}" if path else str(k))]
  return [] if a == b else [f"{path}: {_short(a)} -> {_short(b)}"]


def _short(x: Json) -> str:
  text = json.dumps(x)
  return text if len(text) <= 40 else text[:37] + "..."
