"""What models know of the mesh. Their one hint about sharding: per-sample tensors stay with their sample.

Without it XLA treats the small conditioning path of a DiT under FSDP as tensor-parallel: it gathers the
condition of the global batch, keeps the adaLN weights split, and exchanges all their outputs. Planned for
DiT-B/2 on 16 v5e chips with fsdp 16 (experiments/results/plan/page.md): 54 -> 2 all-to-alls a step, the two of the
label's embedding. The price: adaLN weights are gathered and their gradients summed like all others, which at
16 images a chip is more bytes than the exchange was (552 -> 782 MiB that a chip sends in a step).
"""

import math

import jax
from jax.sharding import AxisType, PartitionSpec

from latents.types import Array

BATCH_AXES = ("data", "fsdp")


def batch_axes() -> dict[str, int]:
  """Name -> size of the axes of the current mesh over which the batch is split; {} without a mesh."""
  mesh = jax.sharding.get_abstract_mesh()
  if mesh is None or mesh.empty:
    return {}
  kinds = dict(zip(mesh.axis_names, mesh.axis_types, strict=True))
  # inside shard_map an axis is Manual, and a constraint on it would be an error
  return {name: mesh.shape[name] for name in BATCH_AXES if kinds.get(name) == AxisType.Auto}


def on_cpu() -> bool:
  """Whether what is traced is for a CPU: by the devices of the current mesh, without a mesh by jax's default."""
  mesh = jax.sharding.get_abstract_mesh()
  device = None if mesh is None or mesh.empty else mesh.abstract_device
  return (device.platform if device else jax.default_backend()) == "cpu"


def constrain(x: Array) -> Array:
  """[B,...] -> same: splits the batch over the mesh's data axes; a no-op without them, or where B is indivisible."""
  axes = batch_axes()
  if not axes or x.shape[0] % math.prod(axes.values()):
    return x
  return jax.lax.with_sharding_constraint(x, PartitionSpec(tuple(axes), *[None] * (x.ndim - 1)))
