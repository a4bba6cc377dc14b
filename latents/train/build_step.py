"""One builder of a stage's program, shared by training, planning and tests."""

import dataclasses
import functools
from collections.abc import Callable
from typing import Any, Literal

import jax
import jax.numpy as jnp
from jax.sharding import NamedSharding, PartitionSpec

from latents.autoencoders import Autoencoder
from latents.data import Source
from latents.declare import Experiment, Stage2
from latents.frozen import Frozen
from latents.train import objective, partition, sharding, stage1, stage2
from latents.train.state import State
from latents.types import Batch


@dataclasses.dataclass(frozen=True)
class InMesh:
  """A jitted function that is called, lowered or shaped with `mesh` as the mesh of its constraints."""

  mesh: jax.sharding.Mesh
  function: Any

  def __call__(self, *args: Any) -> Any:
    """Run it."""
    with jax.set_mesh(self.mesh):
      return self.function(*args)

  def lower(self, *args: Any) -> Any:
    """jax.stages.Lowered for abstract or real arguments."""
    with jax.set_mesh(self.mesh):
      return self.function.lower(*args)

  def shapes(self, *args: Any) -> Any:
    """The abstract result; the trace is kept for the first real call."""
    with jax.set_mesh(self.mesh):
      return jax.eval_shape(self.function, *args)


@dataclasses.dataclass(frozen=True)
class Program:
  """A stage ready to run or to compile on `mesh`.

  init() -> State, or init(start) with variables that replace random ones; step(state, frozen, batch) -> (state,
  scalars by name), state donated; both jitted.
  state, frozen, batch: abstract trees with shardings attached.
  """

  mesh: jax.sharding.Mesh
  init: InMesh
  step: InMesh
  state: State
  frozen: Any
  batch: Batch


def abstract_batch(source: Source, batch: int, mesh: jax.sharding.Mesh) -> Batch:
  """Shapes of a global batch as the loader gives it."""
  rows = NamedSharding(mesh, sharding.BATCH)
  dtype = jnp.uint8 if source.kind == "image" else jnp.float32
  shapes = {"x": jax.ShapeDtypeStruct((batch, *source.shape), dtype, sharding=rows)}
  ids = jax.ShapeDtypeStruct((batch,), jnp.int32, sharding=rows)
  return shapes | {"index": ids} | ({"label": ids} if source.classes else {})


def abstract_autoencoder(experiment: Experiment) -> dict[str, Any]:
  """Shapes of what `Frozen` needs of stage 1: variables, mean, std."""
  model: Any = experiment.stage1.model  # a linen module is a frozen dataclass, and so hashable
  return jax.tree.map(lambda a: a, _autoencoder_shapes(model, experiment.stage1.data.shape))


@functools.lru_cache(maxsize=8)  # a run asks at every turn, and a trace of a paper's model takes seconds
def _autoencoder_shapes(model: Autoencoder, signal: tuple[int, ...]) -> dict[str, Any]:
  x = jax.ShapeDtypeStruct((1, *signal), jnp.float32)
  variables = {"params": {}, **jax.eval_shape(functools.partial(stage1.first_variables, model, jax.random.key(0)), x)}
  latent = jax.eval_shape(lambda v, x: model.apply(v, x, method="encode"), variables, x)
  channel = jax.ShapeDtypeStruct(latent.z.shape[-1:], jnp.float32)
  return {"variables": variables, "mean": channel, "std": channel}


def abstract_prior(experiment: Experiment) -> dict[str, Any]:
  """Shapes of the prior's variables; the data need not be there."""
  stage = experiment.stage2
  assert stage is not None
  arrays = abstract_autoencoder(experiment)
  batch = {"x": jax.ShapeDtypeStruct((1, *stage.data.shape), jnp.float32)}
  init = functools.partial(stage2.init, stage, Frozen(experiment.stage1.model), experiment.seed)
  return jax.eval_shape(init, arrays, batch).ema


def build_step(experiment: Experiment, stage: Literal[1, 2], mesh: jax.sharding.Mesh, *, stored: Any = None) -> Program:
  """The program of a stage. stored: shape and dtype of one cached latent, if stage 2 reads a cache."""
  declared = experiment.stage1 if stage == 1 else experiment.stage2
  if declared is None:
    raise ValueError(f"{experiment.name} has no stage {stage}")
  sharding.check_batch(declared.batch, mesh, declared.microbatches)
  batch = abstract_batch(declared.data, declared.batch, mesh)
  if stored is not None:
    shape = (declared.batch, *stored.shape)
    batch["stored"] = jax.ShapeDtypeStruct(shape, stored.dtype, sharding=batch.pop("x").sharding)
  if isinstance(declared, Stage2):
    model = Frozen(experiment.stage1.model)
    frozen = abstract_autoencoder(experiment) | {"losses": objective.abstract_frozen(declared.losses)}
    init = functools.partial(stage2.init, declared, model, experiment.seed)
    step = functools.partial(stage2.step, declared, model, experiment.seed)
  else:
    fixed = partition.split(abstract_autoencoder(experiment)["variables"], declared.trained)[1]
    frozen = {"losses": objective.abstract_frozen(declared.losses), "fixed": fixed}
    init = functools.partial(stage1.init, declared, experiment.seed)
    step = functools.partial(stage1.step, declared, experiment.seed)
  return _program(mesh, init, step, frozen, batch)


def once(mesh: jax.sharding.Mesh) -> dict[str, Any] | None:
  """Compiler options for a program that runs once. On CPU the initial random numbers of a small model
  take LLVM half a minute to optimise, and no time to draw unoptimised."""
  cpu = mesh.devices.flat[0].platform == "cpu"
  return {"xla_backend_optimization_level": 0, "xla_llvm_disable_expensive_passes": True} if cpu else None


def _program(mesh: jax.sharding.Mesh, init: Callable, step: Callable, frozen: Any, batch: Batch) -> Program:
  with jax.set_mesh(mesh):
    state = jax.eval_shape(init, frozen, batch)
  layout = sharding.shardings(state, mesh)
  state = sharding.abstract(state, layout)
  frozen = sharding.abstract(frozen, sharding.frozen_shardings(frozen, mesh))

  def start(*given: Any) -> State:
    zeros = functools.partial(jax.tree.map, lambda a: jnp.zeros(a.shape, a.dtype))
    return init(zeros(frozen), zeros(batch), *given)

  replicated = NamedSharding(mesh, PartitionSpec())
  jitted_init = jax.jit(start, out_shardings=layout, compiler_options=once(mesh))
  jitted_step = jax.jit(step, out_shardings=(layout, replicated), donate_argnums=0)

  return Program(mesh, InMesh(mesh, jitted_init), InMesh(mesh, jitted_step), state, frozen, batch)
