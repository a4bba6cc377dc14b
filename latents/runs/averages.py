"""Averages of other widths than those that a run kept, made of its checkpoints after it has ended."""

import dataclasses
from pathlib import Path
from typing import Any

import numpy as np

from latents.errors import UserError
from latents.machine import hosts
from latents.machine.disk import on_disk
from latents.optim import PowerAverage, combination, gamma_of, width
from latents.store import artefact
from latents.store.folder import Folder, open_folder
from latents.train.checkpoint import Checkpoints


def make(run: Path, wanted: float, number: int | None = None) -> str:
  """Add the average of a relative width to a stage of a finished run (None: its last), as it would be at its last step,
  and let the run be sampled and evaluated with it; the average's name.

  Post-hoc EMA: Karras et al. 2024, arXiv:2312.02696, section 3.2. UserError where nothing was kept that it could be
  made of.
  """
  folder = open_folder(on_disk(run))
  number = number or (1 if folder.experiment.stage2 is None else 2)
  gamma, name, place = gamma_of(wanted), f"{wanted:g}", folder.stage(number)
  stage = folder.experiment.stage(number)
  powers = {key: one.gamma for key, one in stage.averages.items() if isinstance(one, PowerAverage)}
  if not powers:
    raise UserError(f"{folder.called(number)} of {run} keeps no power average: stage{number}.averages has none")
  if not folder.finished(number) or not (place / "checkpoints").is_dir():
    raise UserError(
      f"{place} has no checkpoints of a finished stage: train with --stage{number}.keep-checkpoints True, and "
      "average in the run that trained it"
    )
  with folder.claimed():
    found, kept = _combined(place, powers, (stage.steps, gamma), run)
    if hosts.first():
      artefact.add_average(place, name, found)
      evaluation = dataclasses.replace(folder.experiment.evaluation, average=name)
      Folder(folder.path, dataclasses.replace(folder.experiment, evaluation=evaluation)).write_declaration()
  widths = ", ".join(f"{width(g):.3g}" for g in powers.values())
  return f"{folder.called(number)}: width {name} of {kept} snapshots of width {widths}; the run is sampled with it now"


def _combined(
  place: Path, powers: dict[str, float], wanted: tuple[float, float], run: Path
) -> tuple[dict[str, np.ndarray], int]:
  """(the arrays of the combination, how many snapshots are in it): one checkpoint at a time."""
  checkpoints = Checkpoints(place / "checkpoints", None)
  try:
    steps = checkpoints.sound()
    profiles = [(float(step), gamma) for step in steps for gamma in powers.values()]
    if len(steps) < 2:
      raise UserError(f"{run} has {len(steps)} sound checkpoints: two or more are combined")
    shares = iter(combination(profiles, wanted))
    total: dict[str, Any] = {}
    for step in steps:
      flat = checkpoints.arrays(step)
      for key in powers:
        share, start = next(shares), f"averages/{key}/"
        for path, array in flat.items():
          if path.startswith(start):
            told = path.removeprefix(start)
            floating = np.issubdtype(array.dtype, np.floating)
            total[told] = share * array.astype(np.float64) + total.get(told, 0.0) if floating else array
  finally:
    checkpoints.close()
  narrow = {path: a.astype(np.float32) if a.dtype == np.float64 else a for path, a in total.items()}
  return narrow, len(profiles)
