"""Held-out examples, and sums over them that one compiled program adds to."""

from collections.abc import Callable, Iterator
from typing import Any

import jax
import numpy as np
from jax.sharding import NamedSharding, PartitionSpec

from latents.data import Split, evaluation_batches
from latents.declare import Experiment
from latents.train import sharding
from latents.train.build_step import InMesh, once
from latents.types import to_signal
from latents.use import measures


def rows(experiment: Experiment, split: Split = "test", limit: int | None = None) -> Iterator[dict[str, np.ndarray]]:
  """`limit` examples of a split (None: `evaluation.images`), all in order or a fixed choice over the whole split, in
  batches of one size, as the source gives them, with their mask. Read anew each time: they may be more than fit into
  memory."""
  limit = experiment.evaluation.images if limit is None else limit
  source = measures.held_out(experiment)
  with evaluation_batches(source, split=split, batch=experiment.evaluation.batch, limit=limit, exact=True) as found:
    yield from found


def signals(experiment: Experiment) -> Iterator[tuple[np.ndarray, np.ndarray]]:
  """The held-out examples in [-1,1], and the mask [B] of those that are no padding."""
  for batch in rows(experiment):
    yield np.asarray(to_signal(batch["x"])), batch["mask"]


def accumulator(mesh: jax.sharding.Mesh, add: Callable) -> InMesh:
  """A jitted (..., sums, ...) -> sums. Its few calls do not pay for optimisation; sums lie as `copied` lays them,
  or the second call would compile again."""
  copies = NamedSharding(mesh, PartitionSpec())
  return InMesh(mesh, jax.jit(add, out_shardings=copies, compiler_options=once(mesh)))


def copied(tree: Any, mesh: jax.sharding.Mesh) -> Any:
  """Arrays that every device holds whole."""
  copies = NamedSharding(mesh, PartitionSpec())

  def put(a: Any) -> jax.Array:
    a = np.asarray(a)
    return jax.make_array_from_callback(a.shape, copies, lambda index: a[index])

  return jax.tree.map(put, tree)


def placed(mesh: jax.sharding.Mesh, *arrays: Any) -> list[Any]:
  """Trees of batches and, last, their mask on the mesh; rows that fill it up are masked."""
  *rest, mask = arrays
  filled = np.concatenate([mask, np.zeros(-len(mask) % sharding.parts(mesh), bool)])
  return [*jax.tree.map(lambda x: sharding.spread(np.asarray(x), mesh), rest), sharding.spread(filled, mesh)]
