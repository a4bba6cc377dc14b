"""A recode with the table that is stored with a stage 2, and the codes that it merges."""

from collections.abc import Callable
from typing import Any

import jax
import numpy as np

from latents.declare import Experiment
from latents.frozen import Frozen
from latents.machine import hosts
from latents.recodes import Fitted
from latents.recodes.base import read
from latents.store.artefact import Artefact
from latents.train import sharding, stage2
from latents.train.build_step import InMesh
from latents.types import to_signal


def bound(experiment: Experiment, arrays: Any, one: Artefact, table: Any, where: str) -> Fitted:
  """A stored table as that of stage 2's recode. UserError where it is of another codebook. where: it lies."""
  stage, model = experiment.stage2, experiment.stage1.model
  assert stage is not None and stage.recode is not None
  grid = stage2.code_grid(Frozen(model), arrays, stage.data.shape)
  vocab: Any = model.bottleneck.vocab
  return read(stage.recode, table, grid, vocab, one.latents, where)


def encoder(experiment: Experiment, mesh: jax.sharding.Mesh) -> Callable[[Any, Any], np.ndarray]:
  """(arrays of stage 1, x [B,*S,C] as a source gives it) -> codes [B,*s], the same on every host."""
  frozen = Frozen(experiment.stage1.model)
  store = InMesh(mesh, jax.jit(lambda arrays, x: frozen.store(arrays, to_signal(x))))
  return lambda arrays, x: hosts.gather(store(arrays, sharding.spread(np.asarray(x), mesh)))[: len(x)]
