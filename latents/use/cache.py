"""Encoding data once: the latents of a frozen stage 1 with their mirror images, for `latents encode` and stage 2."""

import contextlib
import dataclasses
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Literal

import jax
import jax.numpy as jnp
import numpy as np

from latents import media
from latents.data import CachedLatents, Source, evaluation_batches, write_cache
from latents.declare import Experiment, Mesh
from latents.errors import UserError
from latents.frozen import Frozen, from_batch, to_batch
from latents.machine import endings, hosts, progress
from latents.machine.disk import check_folder, disk_errors
from latents.store.artefact import Artefact
from latents.store.folder import open_folder
from latents.train import sharding
from latents.train.build_step import InMesh
from latents.types import Stored, to_signal
from latents.use import measures
from latents.use.given import finite
from latents.use.model import load_folder
from latents.use.tiled import Tiled

BATCH = 64


def encode(
  run: Path, out: Path, split: Literal["train", "test"] = "train", data: str | None = None, tile: int | None = None
) -> str:
  """Write the cache of one split of a run's stage-2 data, below a folder; a line that says what was written. data: the
  folder where they lie now. tile: the encoder sees pictures in tiles of that side (`Model.tiled`)."""
  folder = open_folder(run, data)
  folder.check_data(2 if folder.experiment.stage2 else 1)
  if (out / split).exists():
    raise UserError(f"--out {out} has a {split} split already: nothing was overwritten")
  check_folder(out)
  model, one = load_folder(folder, sharding.make_mesh(Mesh())), folder.artefact(1)
  assert one is not None
  source = (folder.experiment.stage2 or folder.experiment.stage1).data
  tiled = None if tile is None else model.tiled(tile)
  with disk_errors(out.absolute().parent):
    write(folder.experiment, model.mesh, model.arrays, one, source, out, split, tiled)
  made = CachedLatents(str(out), one.latents)
  count = len(made.records(split))
  dtype, layout = made.manifest["dtype"], measures.layout(folder.experiment, model.arrays)
  return (
    f"{out}: {count} latents of {made.shape}, plain and mirrored, of stage 1 {one.latents[:12]}; {split}/stored.npy is "
    f"{dtype} {[count, 2, *made.shape]}: {kept_as(made.shape, dtype, layout.gaussian)}"
    f"{'; ' + note if tiled is not None and (note := tiled.note()) else ''}"
  )


def kept_as(shape: tuple[int, ...], dtype: str, gaussian: bool) -> str:
  """What the numbers of stored.npy are, for people. gaussian: there is a posterior."""
  if dtype == "int32":
    return "codes"
  z = f"means z and deviations of the posterior, {shape[-1] // 2} channels each" if gaussian else "z"
  return f"{z}; a prior sees (z - mean) / std, the statistics in manifest.json"


def cached(experiment: Experiment, mesh: jax.sharding.Mesh, arrays: Any, one: Artefact, folder: Path) -> CachedLatents:
  """The cache of stage 2's training data in `folder`, written now if it is not there."""
  assert experiment.stage2 is not None
  data = experiment.stage2.data
  flip = getattr(data, "flip", False)
  made = CachedLatents(str(folder), one.latents, flip)
  if (folder / "train").exists() and CachedLatents(str(folder)).manifest["fingerprint"] == one.fingerprint:
    made = dataclasses.replace(made, fingerprint=one.fingerprint)  # as versions before 2026-12 wrote it
  missing = hosts.tell("latent cache", "" if (folder / "train" / "manifest.json").exists() else "missing")
  if missing:
    with disk_errors(folder.parent):
      write(experiment, mesh, arrays, one, data, folder, "train")
  return made


def shapes(source: CachedLatents) -> Stored:
  """Shapes and dtypes of one latent in a cache, and of what stands beside it."""
  return from_batch({name: jax.ShapeDtypeStruct(*one) for name, one in source.kept.items()})


def write(
  experiment: Experiment, mesh: jax.sharding.Mesh, arrays: Any, one: Artefact, data: Source, folder: Path,
  split: Literal["train", "test"], tiled: Tiled | None = None,
) -> None:  # fmt: skip
  """Encode a split in order, without augmentation but for the mirror image, and write it whole or not at all. tiled:
  what encodes in place of the whole model."""
  frozen = Frozen(experiment.stage1.model)
  mirrored = media.kind(data.kind).mirrored  # sound played backwards is no sound of the set

  def both(arrays: Any, x: Any) -> Any:
    x = to_signal(x)
    plain = frozen.store(arrays, x)
    other = frozen.store(arrays, x[..., ::-1, :]) if mirrored else plain
    return to_batch(jax.tree.map(lambda *copies: jnp.stack(copies, 1), plain, other))

  def in_tiles(tiled: Tiled, x: np.ndarray) -> dict[str, np.ndarray]:
    x = np.asarray(to_signal(x))
    plain = tiled.store(x)
    return {"stored": np.stack([plain, tiled.store(x[..., ::-1, :]) if mirrored else plain], 1)}

  store = InMesh(mesh, jax.jit(both))
  batch = BATCH if tiled is None else sharding.parts(mesh)
  source, stop = evaluation_batches(data, split=split, batch=batch), endings.Request("nothing is kept of this cache")

  def batches() -> Iterator[dict[str, np.ndarray]]:
    for batch in source:
      stop.check()
      x = batch["x"]
      stored = hosts.gather(store(arrays, sharding.spread(x, mesh))) if tiled is None else in_tiles(tiled, x)
      found = {name: array[: len(x)] for name, array in stored.items()}
      for array in found.values():
        finite(array, "the latents", frozen.overflow("encoder"))
      found |= {"mask": batch["mask"]}
      yield found | ({"label": batch["label"]} if "label" in batch else {})

  if not hosts.first():
    for _ in batches():  # its share of the encoding; the first process writes
      pass
    hosts.meet("the latent cache is written")
    return
  count = len(data.records(split))
  rows = progress.over(batches(), "latents to keep", count, lambda found: int(found["mask"].sum()))
  with stop if hosts.processes() == 1 else contextlib.nullcontext():  # what is half written is removed
    write_cache(
      str(folder), rows, split=split, count=count, fingerprint=one.latents,
      statistics=one.facts["statistics"], names=data.names,
    )  # fmt: skip
  hosts.meet("the latent cache is written")
