"""Samples beside the training examples that they are nearest to: does the prior draw, or remember?"""

from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np

from latents import media
from latents.declare import Experiment
from latents.evaluate import Features, Novelty, SampleMetric, Signals, distances
from latents.machine import progress
from latents.types import to_signal
from latents.use import held_out
from latents.use.kept import save_signals

NAME = "neighbours"
SHOWN = 24  # samples


def features(experiment: Experiment, metrics: Sequence[SampleMetric]) -> Features | None:
  """What distances are taken on: what `Novelty` sees where it is measured, else the signal as `media` judges it; None
  for a kind of signal that has no such distance."""
  assert experiment.stage2 is not None
  data = experiment.stage2.data
  named = next((metric.features for metric in metrics if isinstance(metric, Novelty)), None)
  found = named or Signals(data.kind, data.rate)
  return found if data.kind in found.kinds else None


def keep(
  experiment: Experiment, folder: Path, samples: np.ndarray, seen: Features, view: Callable[[np.ndarray], np.ndarray]
) -> None:
  """neighbours.npz and .png: the first samples "x" [n,*S,C] as stored, the "nearest" training example of each (plain,
  not mirrored), their "distance" [n], and in "note" what distance it is. view: signals -> what `seen` sees of them."""
  assert experiment.stage2 is not None
  data, mine = experiment.stage2.data, samples[:SHOWN]
  wanted = view(mine)
  nearest, distance, count = np.zeros_like(mine), np.full(len(mine), np.inf), 0
  rows = held_out.rows(experiment, "train", Novelty.training)
  there = min(len(data.records("train")), Novelty.training)
  for batch in progress.over(rows, "nearest training examples", there, lambda batch: int(batch["mask"].sum())):
    x = media.kind(data.kind).stored(np.asarray(to_signal(batch["x"])))
    found = np.where(batch["mask"], distances(wanted, view(x)), np.inf)
    closer = found.min(1) < distance
    nearest[closer], distance[closer] = x[found.argmin(1)][closer], found.min(1)[closer]
    count += int(batch["mask"].sum())
  note = f"RMS distance of {seen.note}, among {count} training examples"
  arrays = {"x": mine, "nearest": nearest, "distance": distance.astype(np.float32), "note": np.asarray(note)}
  caption = f"above: samples; below: the nearest training example of each ({note}; median {np.median(distance):.3g})"
  save_signals(folder, NAME, arrays, data, caption)
