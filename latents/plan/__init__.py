"""A step planned for devices that are not there: memory, FLOPs, communication, time; `latents plan`.

The same program as in training (`train.build_step`) is lowered on shapes, compiled for the topology and read.
"""

import json
from typing import Any, Literal

import jax
import jax.numpy as jnp

from latents.declare import Experiment, check
from latents.errors import UserError
from latents.frozen import Frozen
from latents.plan import advice, estimate, facts
from latents.plan.table import table
from latents.plan.topology import Topology, devices, parse, start
from latents.train import sharding
from latents.train.build_step import Program, abstract_autoencoder, build_step

__all__ = ["Topology", "make", "parse", "show", "start"]


def show(plan: dict[str, Any], as_json: bool = False) -> str:
  """A plan as text: a table, or one JSON object."""
  return json.dumps(plan, indent=1) if as_json else table(plan)


def make(experiment: Experiment, stage: Literal[1, 2], topology: Topology) -> dict[str, Any]:
  """The plan of one stage as JSON types: bytes, FLOPs and seconds; `show` makes text of it. Call `start` before.

  UserError for a mesh or batch that does not fit the topology, and for a stage that there is not.
  """
  check(experiment)
  program = build(experiment, stage, topology)
  found = facts.find(program, topology)
  sent = estimate.traffic(program, found, topology)
  memory = estimate.memory(program, found, topology)
  times = estimate.times(found, sent, topology, program.mesh.devices.size)
  declared = experiment.stage1 if stage == 1 else experiment.stage2
  assert declared is not None
  total = sum(n for k, n in found.flops.items() if k != "while")
  return {
    "experiment": experiment.name,
    "stage": stage,
    "topology": topology.name,
    "slices": topology.slices,
    "chips": topology.chips,
    "devices": program.mesh.devices.size,
    "mesh": dict(program.mesh.shape),
    "batch": declared.batch,
    "parameters": sum(a.size for a in jax.tree.leaves(program.state.params)),
    "compiler": found.compiler,
    "compile_seconds": found.seconds,
    "stand_in": topology.stand_in,
    "memory": memory,
    "state": estimate.shrink(program),
    "flops": {"step": total, "by_dtype": found.flops, "per_example": total / declared.batch},
    "collectives": sent,
    "time": times,
    "run": estimate.whole_run(experiment, stage, times["step"], topology.chips) if times else None,
    "advice": [] if memory.get("fits", True) else advice.advise(experiment, stage, program, topology, memory),
  }


def build(experiment: Experiment, stage: Literal[1, 2], topology: Topology) -> Program:
  """The stage's program on the topology's devices."""
  declared = experiment.stage1 if stage == 1 else experiment.stage2
  if declared is None:
    raise UserError(f"{experiment.name} has no stage 2 to plan")
  mesh = sharding.make_mesh(experiment.mesh, devices(topology))
  return build_step(experiment, stage, mesh, stored=stored(experiment) if stage == 2 else None)


def stored(experiment: Experiment) -> Any:
  """Shapes and dtypes of one latent as the cache keeps it; None where stage 2 reads examples."""
  stage = experiment.stage2
  if stage is None or not stage.cache:
    return None
  x = jax.ShapeDtypeStruct((1, *stage.data.shape), jnp.float32)
  found = jax.eval_shape(Frozen(experiment.stage1.model).store, abstract_autoencoder(experiment), x)

  def kept(array: jax.ShapeDtypeStruct) -> jax.ShapeDtypeStruct:
    dtype = jnp.float32 if jnp.issubdtype(array.dtype, jnp.floating) else jnp.int32
    return jax.ShapeDtypeStruct(array.shape[1:], dtype)

  return jax.tree.map(kept, found)
