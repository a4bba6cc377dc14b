"""One command's work: stage 1, stage 2, samples, score card, report; each resumed, reused or skipped."""

import dataclasses
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import jax

from latents.data import batches as load_batches
from latents.declare import Experiment, Mesh, Stage1, Stage2, addresses, check, maker
from latents.errors import UserError
from latents.frozen import Frozen
from latents.machine import endings, hosts
from latents.report import write_report
from latents.runs import rehearsal
from latents.store import artefact
from latents.store.folder import REPORT, Folder, choose_folder, open_folder
from latents.train import log, loop, objective, partition, sharding, statistics
from latents.train.build_step import Program, abstract_autoencoder, build_step
from latents.train.state import flatten, nest
from latents.types import Batch
from latents.use import cache as latent_cache
from latents.use import model, score

STAGES = {1: "autoencoder", 2: "prior"}


def run(experiment: Experiment, runs: Path, name: str | None, command: str, paper: str = "") -> Path:
  """Bring a run to its end and return its folder; what is done already is not done again.

  command: what the user typed, paper: a line on what the experiment is, both for the report. UserError,
  one line, for what the user can mend.
  """
  check(experiment)
  folder = choose_folder(runs, experiment, name)
  complete = folder.complete()
  hosts.meet("the folder is looked at")  # before the first process changes it
  if complete:
    _say(f"{folder.path} is complete: nothing to do; report: {folder.path / REPORT}")
    return folder.path
  objective.load_frozen(experiment.stage1.losses)  # missing weights are said now, not when they are needed
  mesh = sharding.make_mesh(experiment.mesh)
  first = rehearsal.rehearse(folder, mesh)
  with folder.claimed():
    if hosts.first():
      folder.write_declaration()
    hosts.meet("the folder is made")
    _stage1(folder, mesh, first)
    if hosts.first() and (source := folder.borrow(2)):
      _say(f"stage 2 is the same as in {source.parent}: reused")
    hosts.meet("stage 2 is looked for")
    if experiment.stage2 is not None and folder.artefact(2) is None:
      train_stage(folder, 2, mesh)
    _judge(folder, mesh, command, paper)
  _say(f"report: {folder.path / REPORT}")
  return folder.path


def _stage1(folder: Folder, mesh: jax.sharding.Mesh, program: Program | None, nested: bool = False) -> None:
  """Stage 1: there already, copied from a run beside this one, or trained, after the stages that it begins with."""
  if hosts.first() and folder.artefact(1) is None and (source := folder.borrow(1, nested)):
    _say(f"stage 1 is the same as in {source.parent}: reused")
  hosts.meet(f"stage 1 {folder.stage(1).name} is looked for")
  if folder.artefact(1) is not None:
    folder.check_data(1)
    return
  for base in folder.bases():
    _stage1(base, mesh, None, nested=True)
  train_stage(folder, 1, mesh, program, nested)


def _judge(folder: Folder, mesh: jax.sharding.Mesh, command: str, paper: str = "") -> dict[str, Any]:
  with endings.stoppable():
    scores = score.judge(folder, mesh, command, paper)
    if hosts.first():
      write_report([folder.path], folder.path / REPORT)
    hosts.meet("the report is written")
  return scores


def evaluate(run: Path, changes: dict[str, Any], command: str) -> dict[str, Any]:
  """Measure a finished run anew, with other numbers of images and samples if asked; renews its report."""
  folder = open_folder(run)
  evaluation = dataclasses.replace(folder.experiment.evaluation, **changes)
  folder = Folder(run, dataclasses.replace(folder.experiment, evaluation=evaluation))
  check(folder.experiment)
  if folder.experiment.stage2 is not None and folder.artefact(2) is None:
    raise UserError(f"stage 2 of {run} is not finished: the same `latents run` command goes on with it")
  hosts.meet("the folder is looked at")
  with folder.claimed():
    if hosts.first():
      folder.write_declaration()
    return _judge(folder, sharding.make_mesh(Mesh()), command)


def train_stage(
  folder: Folder, number: int, mesh: jax.sharding.Mesh, program: Program | None = None, nested: bool = False
) -> None:
  """Train a stage from its newest checkpoint on and write its artefact. program: if it is built already.

  nested: a stage that another one begins with; it logs into its own folder.
  """
  experiment = folder.experiment
  stage = experiment.stage1 if number == 1 else experiment.stage2
  assert stage is not None
  place = folder.stage(number)
  prepare = _prepare1 if number == 1 else _prepare2
  identity = folder.check_data(number)
  program, arrays, facts, batches, start = prepare(folder, mesh, program)
  plan = loop.Plan(
    stage=number, steps=stage.steps, batch=stage.batch, log_every=stage.log_every, save_every=stage.save_every,
    patience=stage.patience,
  )  # fmt: skip
  count = _count(program)
  _say(f"stage {number}, {STAGES[number]}: {count:,} parameters, {stage.steps} steps of {stage.batch}")
  where = place if nested else folder.path
  writer = where if hosts.first() else None
  hosts.meet(f"stage {number} is ready")
  if stage.steps:
    state = loop.train(program, plan, arrays, batches, place, writer, start)
  else:
    state = loop.first_state(program, start)
  facts |= {
    "address": addresses(experiment)[number - 1],
    "stage": number,
    "steps": stage.steps,
    "parameters": count,
    "ema": stage.ema,
    "data": identity,
    "seconds": round(log.seconds(where / log.FILE, number), 1),
  }
  variables = partition.merge(arrays["fixed"], state.ema) if number == 1 else state.ema
  if number == 1:
    facts["statistics"] = _inherited(folder) or _statistics(experiment, variables, mesh)
  weights = flatten(hosts.gather(variables))
  if hosts.first():
    artefact.write(place, weights, facts)
  hosts.meet(f"the artefact of stage {number} is written")


Prepared = tuple[Program, Any, dict, Callable, Any]


def _prepare1(folder: Folder, mesh: jax.sharding.Mesh, program: Program | None) -> Prepared:
  stage = folder.experiment.stage1
  program = program or build_step(folder.experiment, 1, mesh)
  start = _start(folder)
  fixed = partition.select(start, stage.trained, below=False)
  artefact.check_shapes(f"what stage 1 of {folder.path} begins with", flatten(fixed), flatten(program.frozen["fixed"]))
  arrays = sharding.place({"losses": objective.load_frozen(stage.losses), "fixed": fixed}, mesh)
  return program, arrays, {}, _batches(folder.experiment, stage, mesh), sharding.place(start, mesh)


def _start(folder: Folder) -> dict[str, Any]:
  """The variables that stage 1 begins with, from the artefacts of other stages; later ones lie over earlier ones."""
  found: dict[str, Any] = {}
  for start in folder.experiment.stage1.start:
    made = folder.base(start.stage).artefact(1)
    assert made is not None
    found = partition.merge(found, partition.place(nest(made.weights), start.source, start.into))
  wanted = flatten(abstract_autoencoder(folder.experiment)["variables"])
  return nest({name: array for name, array in flatten(found).items() if name in wanted})


def _inherited(folder: Folder) -> dict[str, Any] | None:
  """The statistics of the stage that made the latents, where it is another: the same latents, the same units."""
  stage = folder.experiment.stage1
  if (origin := maker(stage)) is stage:
    return None
  made = folder.base(origin).artefact(1)
  return None if made is None else made.facts["statistics"]


def _prepare2(folder: Folder, mesh: jax.sharding.Mesh, program: Program | None) -> Prepared:
  experiment = folder.experiment
  stage, one = experiment.stage2, folder.artefact(1)
  assert stage is not None and one is not None
  arrays = sharding.place(model.stage1_arrays(experiment, one, str(folder.stage(1))), mesh)
  stored, source = None, stage.data
  if stage.cache:
    source = latent_cache.cached(experiment, mesh, arrays, one, folder.stage(2) / "latents")
    stored = jax.ShapeDtypeStruct(*source.stored)
  program = program or build_step(experiment, 2, mesh, stored=stored)
  return program, arrays, {"stage1": one.latents}, _batches(experiment, stage, mesh, source), None


def _batches(
  experiment: Experiment, stage: Stage1 | Stage2, mesh: jax.sharding.Mesh, source: Any = None
) -> Callable[[int], Iterator[Batch]]:
  """start -> this process's rows of the global batches from step `start` on, a function of (seed, step)."""
  return lambda start: load_batches(
    stage.data if source is None else source,
    split="train",
    batch=stage.batch,
    seed=experiment.seed,
    start=start,
    workers=stage.workers,
    rows=sharding.rows_of(stage.batch, mesh),
  )


def _statistics(experiment: Experiment, variables: Any, mesh: jax.sharding.Mesh) -> dict[str, Any]:
  stage = experiment.stage1
  count = max(1, min(statistics.EXAMPLES, len(stage.data.records("train"))) // stage.batch)
  data = load_batches(
    stage.data, split="train", batch=stage.batch, seed=experiment.seed, rows=sharding.rows_of(stage.batch, mesh)
  )
  try:
    first = (batch for _, batch in zip(range(count), data, strict=False))
    return statistics.measure(Frozen(stage.model), variables, first, stage.batch, mesh)
  finally:
    getattr(data, "close", lambda: None)()


def _count(program: Program) -> int:
  return sum(a.size for a in jax.tree.leaves(program.state.params))


def _say(text: str) -> None:
  if hosts.first():
    print(f"latents: {text}", file=sys.stderr, flush=True)
