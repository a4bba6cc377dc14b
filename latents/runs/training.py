"""One stage brought to its end: there already, taken from the store, or trained after the stages that it needs."""

import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, Literal

import jax
import numpy as np

from latents.data import batches as load_batches
from latents.data import evaluation_batches
from latents.declare import Experiment, Stage1, Stage2, addresses
from latents.errors import UserError
from latents.frozen import Frozen
from latents.losses.base import Reconstruction
from latents.machine import hosts
from latents.plan import flops
from latents.runs import begin
from latents.store import artefact
from latents.store.folder import Folder
from latents.train import log, loop, partition, sharding, statistics
from latents.train.build_step import Program, build_step
from latents.train.state import State, flatten
from latents.types import Batch
from latents.use import cache as latent_cache
from latents.use import merging, model

KINDS = {1: "autoencoder", 2: "prior"}


def bring(folder: Folder, number: Literal[1, 2], mesh: jax.sharding.Mesh, program: Program | None = None) -> None:
  """See the module. program: if it is built already."""
  if hosts.first() and (source := folder.borrow(number)):
    say(f"{folder.called(number)} is the same as in {_run_of(source)}: reused")
  hosts.meet(f"{folder.stage(number).name} is looked for")
  if folder.finished(number):
    folder.check_data(number)
  else:
    for base, which in begin.needed(folder, number):
      bring(base, which, mesh)
    _train(folder, number, mesh, program)
  if hosts.first() and not folder.experiment.stage(number).keep_checkpoints:
    folder.drop_checkpoints(number)


def _train(folder: Folder, number: Literal[1, 2], mesh: jax.sharding.Mesh, program: Program | None) -> None:
  """Train a stage from its newest checkpoint on and write its artefact."""
  experiment, place = folder.experiment, folder.stage(number)
  stage = experiment.stage(number)
  identity = folder.check_data(number)
  begun = begin.weights(folder, number)
  program, arrays, facts, source = (_prepare1 if number == 1 else _prepare2)(folder, mesh, program)
  where = f"what {folder.called(number)} of {folder.path} begins with"
  arrays["fixed"] = sharding.place(begin.untrained(program, begun, stage.trained, where), mesh)
  arrays["losses"] = sharding.place(begin.teachers(folder, number), mesh)
  plan = loop.Plan(
    stage=number, name=folder.called(number), steps=stage.steps, batch=stage.batch, log_every=stage.log_every,
    save_every=stage.save_every, patience=stage.patience,
    headline=_headline(stage) if number == 1 else (),  # a prior's terms are few
    rate=stage.optimizer.rate(stage.steps),
    held_out=_held_out(folder, number, program, arrays) if stage.held_out_every else None,
    held_out_every=stage.held_out_every,
    keep=None if stage.keep_checkpoints else 2,
  )  # fmt: skip
  count = sum(a.size for a in jax.tree.leaves(program.state.params))
  for line in begin.describe(folder, number):
    say(line)
  what = f"{count:,} parameters, {stage.steps} steps of {stage.batch}" if count else "nothing is trained"
  say(f"{folder.called(number)}, {KINDS[number]}: {what}")
  writer = folder.log(number).parent if hosts.first() else None
  hosts.meet(f"{folder.called(number)} is ready")
  start = sharding.place(begun, mesh) if flatten(begun) else None
  spent = stage.steps * flops.of_step(program) if stage.steps else 0
  if stage.steps:
    state = loop.train(program, plan, arrays, _batches(experiment, stage, mesh, source), place, writer, start)
    if int(state.extra["skipped_total"]) >= stage.steps:
      raise UserError(f"{folder.called(number)}: none of its {stage.steps} updates was finite, so nothing was learned")
  else:
    state = loop.first_state(program, start)
  facts |= {
    "address": addresses(experiment)[number - 1],
    "stage": number,
    "steps": stage.steps,
    "parameters": count,
    "ema": stage.ema,
    "flops": spent,
    "data": identity,
    "seconds": round(log.seconds(folder.log(number), number), 1),
  }
  _finish(folder, number, mesh, state, arrays["fixed"], facts)


def _headline(stage: Stage1 | Stage2) -> tuple[str, ...]:
  """The names of the losses, reconstructions first."""
  return tuple(sorted(stage.losses, key=lambda name: not isinstance(stage.losses[name], Reconstruction)))


def _finish(
  folder: Folder, number: Literal[1, 2], mesh: jax.sharding.Mesh, state: State, fixed: Any, facts: dict[str, Any]
) -> None:
  """Write the artefact: all weights, the untrained with the averaged; the networks of the losses as they are."""
  variables = partition.merge(fixed, state.ema)
  if number == 1:
    facts["statistics"] = begin.inherited(folder) or _statistics(folder.experiment, variables, mesh)
  weights, networks = flatten(hosts.gather(variables)), flatten(hosts.gather(begin.networks(folder, number, state)))
  averages = flatten(hosts.gather({"average": state.averages}))
  if hosts.first():
    stage, place = folder.experiment.stage(number), folder.stage(number)
    table = merging.table(place) if isinstance(stage, Stage2) and stage.recode is not None else None
    artefact.write(place, weights, facts, networks, averages, table)
    folder.keep(number)
  hosts.meet(f"the artefact of {folder.called(number)} is written")


Prepared = tuple[Program, dict[str, Any], dict[str, Any], Any]


def _prepare1(folder: Folder, mesh: jax.sharding.Mesh, program: Program | None) -> Prepared:
  """(the program, arrays that its step reads, facts, None)."""
  return program or build_step(folder.experiment, 1, mesh), {}, {}, None


def _prepare2(folder: Folder, mesh: jax.sharding.Mesh, program: Program | None) -> Prepared:
  """As `_prepare1`; the arrays are stage 1's, and last is what the data are read from where it is a cache."""
  experiment = folder.experiment
  stage, one = experiment.stage2, folder.artefact(1)
  assert stage is not None and one is not None
  arrays = sharding.place(model.stage1_arrays(experiment, one, str(folder.stage(1))), mesh)
  stored, source = None, None
  if stage.recode is not None:
    source = merging.prepared(experiment, mesh, arrays, one, folder.stage(2))[0]
  elif stage.cache:
    source = latent_cache.cached(experiment, mesh, arrays, one, folder.stage(2) / "latents")
    stored = latent_cache.shapes(source)
  program = program or build_step(experiment, 2, mesh, stored=stored)
  return program, arrays, {"stage1": one.latents}, source


def _batches(
  experiment: Experiment, stage: Stage1 | Stage2, mesh: jax.sharding.Mesh, source: Any = None
) -> Callable[[int], Iterator[Batch]]:
  """start -> this process's rows of the global batches from step `start` on, a function of (seed, step)."""
  return lambda start: load_batches(
    stage.data if source is None else source,
    split="train",
    batch=stage.batch,
    seed=experiment.seed_of(stage),
    start=start,
    workers=stage.workers,
    rows=sharding.rows_of(stage.batch, mesh),
  )


def _held_out(
  folder: Folder, which: int, program: Program, arrays: dict[str, Any]
) -> Callable[[State], dict[str, Any]]:
  """state -> the losses on a fixed choice of held-out examples: a batch of them, or as many as there are and divide
  over the devices (where they are fewer than devices, some count twice)."""
  stage = folder.experiment.stage(which)
  unit, there = sharding.parts(program.mesh) * stage.microbatches, len(stage.data.records("test"))
  number = max(unit, min(stage.batch, there) // unit * unit)
  with evaluation_batches(stage.data, split="test", batch=min(number, there), limit=min(number, there)) as found:
    batch = next(found)
  if isinstance(stage, Stage2) and stage.recode is not None:
    one = folder.artefact(1)
    assert one is not None
    batch = merging.batch(folder.experiment, program.mesh, arrays, one, folder.stage(which), batch)
  rows = np.resize(np.arange(min(number, there)), number)[sharding.rows_of(number, program.mesh)]
  batch = {name: array[rows] for name, array in batch.items() if name != "mask"}
  placed = sharding.place_batch(batch, number, program.mesh)
  return lambda state: program.held_out(state, arrays, placed)


def _statistics(experiment: Experiment, variables: Any, mesh: jax.sharding.Mesh) -> dict[str, Any]:
  stage = experiment.stage1
  count = max(1, min(statistics.EXAMPLES, len(stage.data.records("train"))) // stage.batch)
  data = _batches(experiment, stage, mesh)(0)
  try:
    first = (batch for _, batch in zip(range(count), data, strict=False))
    return statistics.measure(Frozen(stage.model), variables, first, stage.batch, mesh, stage.normalise)
  finally:
    getattr(data, "close", lambda: None)()


def _run_of(source: Path) -> Path:
  """What people know a stage's folder by: its run, or the store's folder."""
  return source.parent if source.name.startswith("stage") else source


def say(text: str) -> None:
  """A line on standard error, from the first process."""
  if hosts.first():
    print(f"latents: {text}", file=sys.stderr, flush=True)
