"""One command's work: stage 1, stage 2, samples, score card, report; each resumed, reused or skipped."""

import dataclasses
import os
from pathlib import Path
from typing import Any

import jax

from latents.declare import Experiment, Mesh, Stage1, check, every_stage, own_parts
from latents.errors import UserError
from latents.machine import endings, hosts
from latents.machine.disk import on_disk
from latents.report import write_report
from latents.runs import rehearsal
from latents.runs.training import bring, say
from latents.store.choose import choose_folder
from latents.store.folder import REPORT, Folder, open_folder
from latents.train import objective, sharding
from latents.use import score


def run(experiment: Experiment, runs: Path, name: str | None, command: str, paper: str = "") -> Path:
  """Bring a run to its end and return its folder; what is done already is not done again.

  command: what the user typed, paper: a line on what the experiment is, both for the report. UserError,
  one line, for what the user can mend.
  """
  experiment = _placed(experiment)
  check(experiment)
  folder = choose_folder(on_disk(runs), experiment, name)
  if own := sorted(f"{part.__module__}:{part.__qualname__}" for part in own_parts(experiment)):
    say(f"{', '.join(own)}: no part of latents, so whatever reads this run wants its file, --experiment FILE")
  folder.check_version()
  complete = folder.complete()
  hosts.meet("the folder is looked at")  # before the first process changes it
  if complete:
    say(f"{folder.path} is complete: nothing to do; report: {folder.path / REPORT}")
    return folder.path
  for _, stage in every_stage(experiment):
    objective.load_frozen(stage.losses)  # missing weights are said now, not when they are needed
  mesh = sharding.make_mesh(experiment.mesh)
  first = rehearsal.rehearse(folder, mesh)
  with folder.claimed():
    if hosts.first():
      folder.write_declaration()
    hosts.meet("the folder is made")
    bring(folder, 1, mesh, first)
    if experiment.stage2 is not None:
      bring(folder, 2, mesh)
    _judge(folder, mesh, command, paper)
  say(f"report: {folder.path / REPORT}")
  return folder.path


def share(run: Path, runs: Path) -> Stage1:
  """The stage 1 of a finished run, for other runs in `runs`, where it can be found from now on."""
  folder = open_folder(on_disk(run))
  folder.check_version()
  if not folder.finished(1):
    raise UserError(f"{run} has no finished stage 1: the same `latents run` command goes on with it")
  if hosts.first():
    folder.keep(1, on_disk(runs))
  hosts.meet("stage 1 is shared")
  return dataclasses.replace(folder.experiment.stage1, seed=folder.experiment.seed_of(folder.experiment.stage1))


def _judge(folder: Folder, mesh: jax.sharding.Mesh, command: str, paper: str = "") -> dict[str, Any]:
  with endings.stoppable():
    scores = score.judge(folder, mesh, command, paper)
    if hosts.first():
      folder.write_declaration()  # of an evaluation: not before it has succeeded, and before the report reads it
      write_report([folder.path], folder.path / REPORT)
    hosts.meet("the report is written")
  return scores


def evaluate(run: Path, changes: dict[str, Any], command: str, data: str | None = None) -> dict[str, Any]:
  """Measure a finished run anew, with other numbers of images and samples if asked; renews its report. data: the folder
  where its data lie now, the same as before or UserError."""
  folder = open_folder(on_disk(run), data)
  evaluation = dataclasses.replace(folder.experiment.evaluation, **changes)
  folder = Folder(run, _placed(dataclasses.replace(folder.experiment, evaluation=evaluation)))
  check(folder.experiment)
  if folder.experiment.stage2 is not None and not folder.finished(2):
    raise UserError(f"stage 2 of {run} is not finished: the same `latents run` command goes on with it")
  folder.check_version()
  for number in (1, 2) if folder.experiment.stage2 else (1,):
    folder.check_data(number)
  score.load_metrics(folder.experiment)  # a missing file is said before anything is changed
  hosts.meet("the folder is looked at")
  with folder.claimed():
    return _judge(folder, sharding.make_mesh(Mesh()), command)


def _placed(experiment: Experiment) -> Experiment:
  """The experiment with the file that its evaluation reads by its whole path, so that it is found from everywhere."""
  evaluation = experiment.evaluation
  if not evaluation.lpips:
    return experiment
  path = os.path.abspath(os.path.expanduser(evaluation.lpips))
  return dataclasses.replace(experiment, evaluation=dataclasses.replace(evaluation, lpips=path))
