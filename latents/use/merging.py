"""The codes of stage 2's training data as merged tokens, with the table that is fitted on them, once."""

import contextlib
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import jax
import numpy as np

from latents.data import CachedLatents, choice, write_cache
from latents.declare import Experiment
from latents.frozen import to_batch
from latents.machine import endings, hosts, progress
from latents.machine.disk import disk_errors
from latents.recodes import Fitted
from latents.recodes.base import fitted
from latents.store import artefact
from latents.store.artefact import Artefact
from latents.types import Batch, Encoded
from latents.use import cache, held_out, recoded

BATCH = 4096  # examples that are merged at a time
FOLDER = "merged"  # beside a stage's checkpoints


def prepared(
  experiment: Experiment, mesh: jax.sharding.Mesh, arrays: Any, one: Artefact, place: Path
) -> tuple[CachedLatents, Fitted]:
  """The merged tokens of stage 2's training data in `place`/merged, and their table; made now if they are not there.

  Its held-out examples are merged too, so that a `length` that is too short for them is said before the training.
  """
  stage, folder = experiment.stage2, place / FOLDER
  assert stage is not None
  file, flip = folder / artefact.RECODE, getattr(stage.data, "flip", False)
  there = file.exists() and (folder / "train" / "manifest.json").exists()
  if hosts.tell("merged tokens", "" if there else "missing"):
    made = cache.cached(experiment, mesh, arrays, one, place / "latents")
    if hosts.first():
      with disk_errors(place):
        _write(experiment, one, made, folder, flip)
    hosts.meet("the merged tokens are written")
  if hosts.first():
    shutil.rmtree(place / "latents", ignore_errors=True)  # the codes, which nothing reads any more
  found = recoded.bound(experiment, arrays, one, table(place), str(file))
  codes = recoded.encoder(experiment, mesh)
  for batch in held_out.rows(experiment):
    found.merge(codes(arrays, batch["x"])[batch["mask"]])
  return CachedLatents(str(folder), one.latents, flip), found


def table(place: Path) -> artefact.Arrays:
  """The table that was fitted for a stage that is not finished yet, in its folder `place`."""
  return artefact.read_arrays(place / FOLDER / artefact.RECODE)


def batch(
  experiment: Experiment, mesh: jax.sharding.Mesh, arrays: Any, one: Artefact, place: Path, examples: Batch
) -> Batch:
  """Examples with their merged tokens in place of "x", for a stage that is not finished yet."""
  found = recoded.bound(experiment, arrays, one, table(place), str(place / FOLDER / artefact.RECODE))
  codes = recoded.encoder(experiment, mesh)(arrays, examples["x"])
  return {**{name: array for name, array in examples.items() if name != "x"}, **keep(found, codes)}


def keep(found: Fitted, codes: np.ndarray) -> Batch:
  """codes [N,*s] -> what a cache keeps of them: tokens and their places."""
  rows = found.merge(codes)
  return to_batch(Encoded(h=rows, side={"places": found.places(rows)}))


def _write(experiment: Experiment, one: Artefact, made: CachedLatents, folder: Path, flip: bool) -> None:
  """Fit the table on the codes of a cache, and write it and the tokens, the tokens last."""
  stage, model = experiment.stage2, experiment.stage1.model
  vocab: Any = model.bottleneck.vocab
  assert stage is not None and stage.recode is not None
  records: Any = made.records("train")
  records = records.arrays
  codes: Any = records["stored"]
  some = np.sort(choice(len(codes), stage.recode.sample or len(codes)))
  copies = 2 if flip else 1  # a mirror image that no step sees is no training data
  seen = codes[some, :copies].reshape(-1, *made.shape)
  found = fitted(stage.recode, seen, vocab, one.latents)
  artefact.write_arrays(folder / artefact.RECODE, dict(found.table))

  stop = endings.Request("nothing is kept of these tokens")

  def batches() -> Iterator[dict[str, np.ndarray]]:
    for first in range(0, len(codes), BATCH):
      stop.check()
      part = codes[first : first + BATCH]
      plain = keep(found, part[:, 0])
      other = keep(found, part[:, 1]) if flip else plain
      labels = {"label": records["label"][first : first + BATCH]} if "label" in records else {}
      yield {**{name: np.stack([plain[name], other[name]], 1) for name in plain}, **labels}

  rows = progress.over(batches(), "tokens to merge", len(codes), lambda batch: len(batch["stored"]))
  with stop if hosts.processes() == 1 else contextlib.nullcontext():  # what is half written is removed
    write_cache(
      str(folder), rows, split="train", count=len(codes), fingerprint=one.latents,
      statistics=one.facts["statistics"], names=stage.data.names,
    )  # fmt: skip
