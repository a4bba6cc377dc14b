"""What a stage begins with: the weights of other stages, checked array for array before anything is trained."""

import dataclasses
from pathlib import Path
from typing import Any, Literal

import jax
import numpy as np

from latents.declare import Mesh, Released, Stage1, Stage2, Start, bases, differences, maker, to_json
from latents.errors import UserError, nearest
from latents.interop import is_backbone, read_release
from latents.machine import hosts
from latents.store import artefact
from latents.store.folder import Folder
from latents.train import objective, partition, sharding
from latents.train.build_step import Program, abstract_autoencoder, abstract_variables, build_step
from latents.train.state import flatten, nest

Tree = Any
LOSSES = "losses"  # the first word of the path of a loss's network


def needed(folder: Folder, number: int) -> list[tuple[Folder, Literal[1, 2]]]:
  """The stages that must be finished before one, each once: (folder, number in it), with its place as the title."""
  found = {}
  for name, stage in bases(folder.experiment.stage(number)).items():
    base, which = folder.of(stage, f"{folder.title or f'stage{number}'}.{name}")
    found.setdefault(base.stage(which), (base, which))
  return list(found.values())


def weights(folder: Folder, number: int) -> dict[str, Tree]:
  """{"model": variables that a stage's model begins with, "losses": those of its losses' networks by name}; later
  starts lie over earlier ones."""
  found: dict[str, Tree] = {"model": {}, LOSSES: {}}
  for i, start in enumerate(folder.experiment.stage(number).start):
    where = f"{folder.title or f'stage{number}'}.start.{i}"
    _add(found, start, partition.place(_given(folder, start), *_paths(start), where))
    found["model"] = partition.merge(found["model"], _statistics(folder, number, start))
  return found


def describe(folder: Folder, number: int) -> list[str]:
  """A line for people on each stage that this one begins with."""
  lines = []
  for start in folder.experiment.stage(number).start:
    what = f"'{start.into}'" if start.into else "its model"
    if isinstance(start.stage, Released):
      lines.append(f"{folder.called(number)} begins {what} with the released weights {Path(start.stage.path).name}")
    else:
      base, which = folder.of(start.stage)
      steps = f"{start.stage.steps} steps, averaged" if start.stage.ema else f"{start.stage.steps} steps"
      source = f"the weights of {base.stage(which).name} ({steps})"
      lines.append(f"{folder.called(number)} begins {what} with {source}, and with a fresh optimiser")
  return lines


def teachers(folder: Folder, number: int) -> dict[str, Tree]:
  """Frozen networks of the losses by name: those that files hold, and the variables of stages that were trained."""
  losses = folder.experiment.stage(number).losses
  found: dict[str, Tree] = dict(objective.load_frozen(losses))
  for name, loss in losses.items():
    if loss.stage is not None:
      found[name] = nest(_finished(*folder.of(loss.stage)).weights)
  return found


def inherited(folder: Folder) -> dict[str, Any] | None:
  """The statistics of the latents where another stage or a release has said them: the same latents, the same units."""
  stage = folder.experiment.stage1
  if (origin := maker(stage)) is not stage:
    return _finished(*folder.of(origin)).facts["statistics"]
  for start in stage.start:
    made = start.stage
    if isinstance(made, Released) and not isinstance(made.statistics, str) and _keeps_latents(stage):
      scale, shift = made.statistics
      shape = abstract_autoencoder(folder.experiment)["mean"].shape
      if any(np.ndim(value) and np.shape(value) != shape for value in (scale, shift)):
        raise UserError(f"the release's statistics are of {np.size(scale)} channels, its latents have {shape[-1]}")
      mean, std = (np.broadcast_to(value, shape).tolist() for value in (shift, 1 / np.asarray(scale)))
      return {"mean": mean, "std": std, "count": 0, "how": "as the release says"}
  return None


def check(folder: Folder, number: int, program: Program) -> None:
  """Every array of every Start has its place, with its shape: UserError that names both flags. Nothing is read but
  released weights, and nothing of the other stages needs to be finished."""
  experiment, place = folder.experiment, folder.title or f"stage{number}"
  for i, start in enumerate(experiment.stage(number).start):
    where = f"{place}.start.{i}"
    given = flatten(partition.place(_abstract(folder, start), *_paths(start), where))
    wanted = flatten(_networks(experiment.stage(number), program, start.into))
    if not start.into.startswith(f"{LOSSES}/"):
      wanted = flatten(abstract_variables(experiment, _number(number)))
    for name, array in given.items():
      if name not in wanted:
        raise UserError(f"{where}.into: the model has no array '{name}'{nearest(name, wanted)}")
      if tuple(array.shape) != tuple(wanted[name].shape):
        raise UserError(
          f"{where}: '{name}' is {tuple(array.shape)} where it comes from and {tuple(wanted[name].shape)} here"
          f"{_flags(experiment.stage(number), start, place, where)}"
        )
    if isinstance(start.stage, Released) and is_backbone(start.stage.layout):
      below = [name for name in wanted if f"{name}/".startswith(f"params/{start.into}/".replace("//", "/"))]
      if lacking := [name for name in below if name not in given]:
        raise UserError(f"{where}: the release has no array for '{lacking[0]}' ({len(lacking)} in all)")


def networks(folder: Folder, number: int, state: Any) -> Tree:
  """The variables of the networks that a stage's losses own, by the loss's name."""
  found = {}
  for name, loss in folder.experiment.stage(number).losses.items():
    params, held = state.params.get(objective.group(name, loss)), state.extra["losses"].get(name, {})
    if params is not None or held:
      found[name] = {"params": params or {}, **held}
  return found


def untrained(program: Program, begun: dict[str, Tree], trained: tuple[str, ...], where: str) -> Tree:
  """What is not trained: as it begins, or at random where no Start says."""
  fixed = partition.select(begun["model"], trained, below=False)
  wanted, found = flatten(program.frozen["fixed"]), flatten(fixed)
  if wanted.keys() - found.keys():
    fixed = partition.merge(hosts.gather(program.fixed()), fixed)
  artefact.check_shapes(where, flatten(fixed), wanted)
  return fixed


def _add(found: dict[str, Tree], start: Start, placed: Tree) -> None:
  if start.into.startswith(f"{LOSSES}/"):
    name = start.into.split("/")[1]
    found[LOSSES][name] = partition.merge(found[LOSSES].get(name, {}), placed)
  else:
    found["model"] = partition.merge(found["model"], placed)


def _paths(start: Start) -> tuple[str, str]:
  """source and into within what they are paths of: the model, or the network of a loss."""
  paths = (p.split("/", 2) if p.startswith(f"{LOSSES}/") else ["", "", p] for p in (start.source, start.into))
  source, into = ("/".join(words[2:]) for words in paths)
  return source, into


def _number(number: int) -> Literal[1, 2]:
  return 1 if number == 1 else 2


def _finished(folder: Folder, number: int) -> artefact.Artefact:
  found = folder.artefact(number)
  if found is None:
    raise UserError(f"{folder.called(number)} is not finished: {folder.stage(number)}")
  return found


def _given(folder: Folder, start: Start) -> Tree:
  """The variables of the stage that a Start names, or of the network of one of its losses."""
  if isinstance(start.stage, Released):
    return nest(read_release(start.stage))
  base, number = folder.of(start.stage)
  if not start.source.startswith(f"{LOSSES}/"):
    return nest(_finished(base, number).weights)
  name, found = start.source.split("/")[1], artefact.read_losses(base.stage(number))
  return nest({k.removeprefix(f"{name}/"): array for k, array in found.items() if k.startswith(f"{name}/")})


def _abstract(folder: Folder, start: Start) -> Tree:
  """The shapes of `_given`."""
  if isinstance(start.stage, Released):
    arrays = read_release(start.stage)
    return nest({name: jax.ShapeDtypeStruct(a.shape, a.dtype) for name, a in arrays.items()})
  base, number = folder.of(start.stage)
  if start.source.startswith(f"{LOSSES}/"):
    mesh = sharding.make_mesh(Mesh(), jax.devices()[:1])
    return _networks(start.stage, build_step(base.experiment, number, mesh), start.source)
  return abstract_variables(base.experiment, number)


def _networks(stage: Stage1 | Stage2, program: Program, path: str) -> Tree:
  """The shapes of a loss's network by its path "losses/NAME/..."; {} for a path in the model."""
  if not path.startswith(f"{LOSSES}/"):
    return {}
  name = path.split("/")[1]
  if name not in stage.losses:
    raise UserError(f"'{path}': that stage has no loss '{name}'{nearest(name, stage.losses)}")
  group = objective.group(name, stage.losses[name])
  params = program.state.params.get(group, {})
  return {"params": params, **program.state.extra["losses"].get(name, {})}


def _statistics(folder: Folder, number: int, start: Start) -> Tree:
  """What normalises the latents of a whole stage 1, beside where it is put, for a model that asks for it."""
  if not isinstance(start.stage, Stage1) or start.source or not start.into:
    return {}
  above, _, name = start.into.rpartition("/")
  asked = {"statistics": {f"{name}_units": {"mean": 0, "std": 0}}}
  asked = partition.place(asked, "", above, "")
  wanted = flatten(abstract_variables(folder.experiment, _number(number)))
  if not flatten(asked).keys() <= wanted.keys():
    return {}
  found = _finished(*folder.of(start.stage)).facts["statistics"]
  shape = wanted[next(iter(flatten(asked)))].shape
  arrays = {key: np.asarray(found[key], np.float32) for key in ("mean", "std")}
  if arrays["mean"].ndim > 1:
    raise UserError(f"{start.into} is normalised element by element: a model on its latents needs units of a channel")
  arrays = {key: np.broadcast_to(array, shape) for key, array in arrays.items()}
  return partition.place({"statistics": {f"{name}_units": arrays}}, "", above, "")


def _keeps_latents(stage: Stage1) -> bool:
  """Whether nothing that makes the latents is trained."""
  return not any(path.split("/")[0] in ("", "encoder", "bottleneck") for path in stage.trained)


def _flags(stage: Stage1 | Stage2, start: Start, place: str, where: str) -> str:
  """Which flags differ between the part that weights come from and the part that they go into."""
  if isinstance(start.stage, Released):
    return ": the release has another size"
  here, there = (_part(s, path) for s, path in ((stage, start.into), (start.stage, start.source)))
  if here is None or there is None:
    return ""
  told = [line.split(": ")[0] for line in differences(to_json(there), to_json(here))]
  told = [name.replace("_", "-") for name in told if "!" not in name]
  if not told:
    return ""
  flags = [
    "--" + ".".join([at, kind, *path.replace("/", ".").split(".")] if path else [at, kind]) + f".{told[0]}"
    for at, kind, path in (
      (f"{where}.stage", _kind(start.stage), start.source),
      (place, _kind(stage), start.into),
    )
  ]
  return f": give {flags[0]} and {flags[1]} the same value"


def _kind(stage: Stage1 | Stage2) -> str:
  return "model" if isinstance(stage, Stage1) else "prior"


def _part(stage: Stage1 | Stage2, path: str) -> Any:
  """The part of a stage's declaration at the path of its variables, as far as fields say it; None beyond."""
  found = getattr(stage, _kind(stage))
  for word in path.split("/") if path else ():
    fields = {f.name for f in dataclasses.fields(found)} if dataclasses.is_dataclass(found) else set()
    found = getattr(found, word) if word in fields else None
  return found
