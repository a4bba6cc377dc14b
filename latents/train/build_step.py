"""One builder of a stage's program, shared by training, planning and tests."""

import dataclasses
import functools
from typing import Any, Literal

import jax
import jax.numpy as jnp
from jax.sharding import NamedSharding, PartitionSpec

from latents import media
from latents.autoencoders import Autoencoder
from latents.data import Source
from latents.declare import Experiment, Stage1, Stage2
from latents.frozen import Frozen, to_batch
from latents.train import objective, partition, sharding, stage1, stage2
from latents.train import step as steps
from latents.train.state import State
from latents.types import Batch, Encoded


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

  def prepare(self, *args: Any) -> None:
    """Compile it for arguments like these; a call of it finds what was compiled."""
    self.lower(*args).compile()

  def shapes(self, *args: Any) -> Any:
    """The abstract result; the trace is kept for the first real call."""
    with jax.set_mesh(self.mesh):
      return jax.eval_shape(self.function, *args)


@dataclasses.dataclass(frozen=True)
class Program:
  """A stage ready to run or to compile on `mesh`.

  init() -> State, or init(start) with variables that replace random ones (`step.init`); fixed() -> what is not trained,
  at random; step(state, frozen, batch) -> (state, scalars by name), state donated; held_out(state, frozen, batch) ->
  scalars by name (`step.held_out`); all jitted, none compiled before it is called.
  state, frozen, batch: abstract trees with shardings attached.
  """

  mesh: jax.sharding.Mesh
  init: InMesh
  fixed: InMesh
  step: InMesh
  held_out: InMesh
  state: State
  frozen: Any
  batch: Batch


def abstract_batch(source: Source, batch: int, mesh: jax.sharding.Mesh) -> Batch:
  """Shapes of a global batch as the loader gives it."""
  rows = NamedSharding(mesh, sharding.BATCH)
  dtype = jnp.dtype(media.kind(source.kind).dtype)
  shapes = {"x": jax.ShapeDtypeStruct((batch, *source.shape), dtype, sharding=rows)}
  ids = jax.ShapeDtypeStruct((batch,), jnp.int32, sharding=rows)
  return shapes | {"index": ids} | ({"label": ids} if source.classes else {})


def abstract_autoencoder(experiment: Experiment) -> dict[str, Any]:
  """Shapes of what `Frozen` needs of stage 1: variables, mean, std."""
  model: Any = experiment.stage1.model  # a linen module is a frozen dataclass, and so hashable
  shapes = _autoencoder_shapes(model, experiment.stage1.data.shape, experiment.stage1.normalise)
  return jax.tree.map(lambda a: a, shapes)


def units(z: tuple[int, ...], normalise: str) -> tuple[int, ...]:
  """[*s,D] of z -> the shape of the statistics that normalise it (`Stage1.normalise`)."""
  return {"channel": z[-1:], "element": z}.get(normalise, ())


@functools.lru_cache(maxsize=8)  # a run asks at every turn, and a trace of a paper's model takes seconds
def _autoencoder_shapes(model: Autoencoder, signal: tuple[int, ...], normalise: str) -> dict[str, Any]:
  x = jax.ShapeDtypeStruct((1, *signal), jnp.float32)
  variables = {"params": {}, **jax.eval_shape(functools.partial(stage1.first_variables, model, jax.random.key(0)), x)}
  latent = jax.eval_shape(lambda v, x: model.apply(v, x, method="encode"), variables, x)
  unit = jax.ShapeDtypeStruct(units(latent.z.shape[1:], normalise), jnp.float32)
  return {"variables": variables, "mean": unit, "std": unit}


def abstract_prior(experiment: Experiment) -> dict[str, Any]:
  """Shapes of all of the prior's variables; the data need not be there."""
  stage = experiment.stage2
  assert stage is not None
  batch = {"x": jax.ShapeDtypeStruct((1, *stage.data.shape), jnp.float32)}
  if stage.recode is not None:
    batch = to_batch(_merged((1, stage.recode.length)))
  batch["label"] = jax.ShapeDtypeStruct((1,), jnp.int32)  # a condition changes no shape of a variable
  first = stage2.passing(stage, Frozen(experiment.stage1.model)).first
  return {"params": {}, **jax.eval_shape(first, jax.random.key(0), abstract_autoencoder(experiment), batch)}


def _merged(shape: tuple[int, ...]) -> Encoded:
  """Merged tokens and their places, as a cache keeps them."""
  tokens = jax.ShapeDtypeStruct(shape, jnp.int32)
  return Encoded(h=tokens, side={"places": tokens})


def abstract_variables(experiment: Experiment, number: Literal[1, 2]) -> dict[str, Any]:
  """Shapes of all variables of a stage's model, trained or not."""
  return abstract_autoencoder(experiment)["variables"] if number == 1 else abstract_prior(experiment)


def _abstract_losses(experiment: Experiment, stage: Stage1 | Stage2) -> dict[str, Any]:
  """Shapes of the frozen networks that the losses read: those of files, and of stages that were trained before."""
  found: dict[str, Any] = dict(objective.abstract_frozen(stage.losses))
  for name, loss in stage.losses.items():
    if loss.stage is not None:
      alone = dataclasses.replace(experiment, stage1=loss.stage, stage2=None)
      found[name] = abstract_autoencoder(alone)["variables"]
  return found


def build_step(experiment: Experiment, stage: Literal[1, 2], mesh: jax.sharding.Mesh, *, stored: Any = None) -> Program:
  """The program of a stage. stored: one cached latent's shapes and dtypes, if stage 2 reads a cache."""
  declared = experiment.stage(stage)
  sharding.check_batch(declared.batch, mesh, declared.microbatches)
  batch = abstract_batch(declared.data, declared.batch, mesh)
  if isinstance(declared, Stage2) and declared.recode is not None:
    stored = _merged((declared.recode.length,))
  if stored is not None:
    rows = batch.pop("x").sharding
    for name, one in to_batch(stored).items():
      batch[name] = jax.ShapeDtypeStruct((declared.batch, *one.shape), one.dtype, sharding=rows)
  fixed = partition.split(abstract_variables(experiment, stage), declared.trained)[1]
  frozen = {"losses": _abstract_losses(experiment, declared), "fixed": fixed}
  if isinstance(declared, Stage2):
    frozen |= abstract_autoencoder(experiment)
    passing = stage2.passing(declared, Frozen(experiment.stage1.model))
  else:
    passing = stage1.passing(declared)
  return _program(mesh, passing, declared, experiment.seed_of(declared), frozen, batch)


def once(mesh: jax.sharding.Mesh) -> dict[str, Any] | None:
  """Compiler options for a program that runs once. On CPU the initial random numbers of a small model
  take LLVM half a minute to optimise, and no time to draw unoptimised."""
  cpu = mesh.devices.flat[0].platform == "cpu"
  return {"xla_backend_optimization_level": 0, "xla_llvm_disable_expensive_passes": True} if cpu else None


def _program(
  mesh: jax.sharding.Mesh, passing: steps.Passing, stage: Stage1 | Stage2, seed: int, frozen: Any, batch: Batch
) -> Program:
  init = functools.partial(steps.init, passing, stage, seed)
  with jax.set_mesh(mesh):
    state = jax.eval_shape(init, frozen, batch)
  layout = sharding.shardings(state, mesh)
  state = sharding.abstract(state, layout)
  frozen = sharding.abstract(frozen, sharding.frozen_shardings(frozen, mesh))

  def zeros(tree: Any) -> Any:
    return jax.tree.map(lambda a: jnp.zeros(a.shape, a.dtype), tree)

  def start(*given: Any) -> State:
    return init(zeros(frozen), zeros(batch), *given)

  def untrained() -> Any:
    first = passing.first(passing.key(seed), zeros(frozen), zeros(batch))
    return partition.split(first, stage.trained)[1]

  replicated = NamedSharding(mesh, PartitionSpec())
  jitted_init = jax.jit(start, out_shardings=layout, compiler_options=once(mesh))
  jitted_fixed = jax.jit(untrained, out_shardings=replicated, compiler_options=once(mesh))
  jitted_step = jax.jit(
    functools.partial(steps.step, passing, stage, seed), out_shardings=(layout, replicated), donate_argnums=0
  )
  jitted_held_out = jax.jit(functools.partial(steps.held_out, passing, stage, seed), out_shardings=replicated)
  start_it, at_random, take, measure = (
    InMesh(mesh, f) for f in (jitted_init, jitted_fixed, jitted_step, jitted_held_out)
  )
  return Program(mesh, start_it, at_random, take, measure, state, frozen, batch)
