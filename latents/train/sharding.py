"""The mesh, and the one table that says how parameters, optimiser and EMA lie on it."""

import math
import re
from typing import Any

import jax
import numpy as np
from jax.experimental import mesh_utils
from jax.sharding import AxisType, NamedSharding, PartitionSpec

from latents import declare as declaration
from latents.errors import UserError
from latents.train.state import flatten, unflatten

AXES = ("data", "fsdp", "tensor")
BATCH = PartitionSpec(("data", "fsdp"))

# Widths that `tensor` splits, by the end of a parameter's path: first projections by their outputs,
# second ones by their inputs, so that one sum closes each pair (Shoeybi et al. 2019).
TABLE: tuple[tuple[str, PartitionSpec], ...] = (
  (r"(query|key|value|qkv|fc1|gate|up|wi)/kernel$", PartitionSpec(None, "tensor")),
  (r"(out|proj|fc2|down|wo)/kernel$", PartitionSpec("tensor", None)),
)

# Numbers. A smaller array is copied to every device: gathering it costs more than it saves. At 2^14 the
# biases of DiT-XL/2 and of the f8 autoencoder kept 4 to 6 % of the state from falling with 64 devices.
SMALL = 2**10
# Bytes of all arrays of a frozen network, or of several. Less is copied to every device (VGG16's features: 59 MB),
# since a frozen network costs no optimiser state and would be gathered at every step; more is split (table).
FROZEN = 2**27


def make_mesh(spec: "declaration.Mesh", devices: list[Any] | None = None) -> jax.sharding.Mesh:
  """Devices (all of this run by default) as a mesh of axes data, fsdp, tensor.

  TPU chips are ordered so that neighbours in the mesh are neighbours in the torus. Chips of several slices
  are joined by the data-centre network: only `data` spans it, outermost. UserError where that does not fit.
  """
  devices = jax.devices() if devices is None else devices
  shape = [spec.data, spec.fsdp, spec.tensor]
  known = math.prod(n for n in shape if n != -1)
  if shape.count(-1) > 1 or any(n == 0 or n < -1 for n in shape):
    raise UserError(f"mesh {tuple(shape)}: sizes are positive, and at most one is -1 (all that remain)")
  if len(devices) % known or (-1 not in shape and known != len(devices)):
    raise UserError(f"mesh {tuple(shape)} does not fit {len(devices)} devices")
  shape = [len(devices) // known if n == -1 else n for n in shape]
  grid = _torus(shape, devices) if devices[0].platform == "tpu" else np.asarray(devices).reshape(shape)
  return jax.sharding.Mesh(grid, AXES, axis_types=(AxisType.Auto,) * len(AXES))


def _torus(shape: list[int], devices: list[Any]) -> np.ndarray:
  slices = len({getattr(d, "slice_index", 0) for d in devices})
  data, *inner = shape
  if data % slices:
    raise UserError(
      f"mesh {tuple(shape)} does not fit {slices} slices of {len(devices) // slices} devices: "
      f"data must be a multiple of {slices}, fsdp x tensor stays within a slice"
    )
  if slices == 1:
    return mesh_utils.create_device_mesh(shape, devices, allow_split_physical_axes=True)
  return mesh_utils.create_hybrid_device_mesh(
    [data // slices, *inner], [slices, 1, 1], devices, allow_split_physical_axes=True
  )


def spec_of(path: str, shape: tuple[int, ...], mesh: jax.sharding.Mesh) -> PartitionSpec:
  """The layout of one array: the table for `tensor`, then the largest axis that `fsdp` divides."""
  spec: list[Any] = [None] * len(shape)
  if len(shape) == 2 and mesh.shape["tensor"] > 1:
    for pattern, entry in TABLE:
      if re.search(pattern, path):
        spec = [a if a and n % mesh.shape[a] == 0 else None for a, n in zip(entry, shape, strict=True)]
        break
  if math.prod(shape) >= SMALL and mesh.shape["fsdp"] > 1:
    free = [i for i, n in enumerate(shape) if spec[i] is None and n % mesh.shape["fsdp"] == 0]
    if free:
      spec[max(free, key=lambda i: shape[i])] = "fsdp"
  return PartitionSpec(*spec)


def shardings(tree: Any, mesh: jax.sharding.Mesh) -> Any:
  """Tree of arrays or shapes -> the same tree of NamedShardings."""
  flat = flatten(tree)
  return unflatten(tree, {p: NamedSharding(mesh, spec_of(p, a.shape, mesh)) for p, a in flat.items()})


def frozen_shardings(tree: Any, mesh: jax.sharding.Mesh) -> Any:
  """As `shardings` for frozen networks: copied to every device where all are less than FROZEN bytes."""
  if sum(math.prod(a.shape) * a.dtype.itemsize for a in jax.tree.leaves(tree)) >= FROZEN:
    return shardings(tree, mesh)
  return jax.tree.map(lambda _: NamedSharding(mesh, PartitionSpec()), tree)


def abstract(tree: Any, layout: Any) -> Any:
  """Tree of shapes, tree of shardings -> shapes with shardings attached: what restore and compile ask for."""
  return jax.tree.map(lambda a, s: jax.ShapeDtypeStruct(a.shape, a.dtype, sharding=s), tree, layout)


def bytes_per_device(tree: Any) -> int:
  """Bytes that each device holds of a tree of arrays (or shapes) with shardings: exact, by arithmetic."""
  return sum(math.prod(a.sharding.shard_shape(a.shape)) * a.dtype.itemsize for a in jax.tree.leaves(tree))


def parts(mesh: jax.sharding.Mesh) -> int:
  """Over how many groups of devices the batch is split."""
  return mesh.shape["data"] * mesh.shape["fsdp"]


def check_batch(batch: int, mesh: jax.sharding.Mesh, microbatches: int = 1) -> None:
  """The global batch, or each part of it, must divide over the devices that hold different examples."""
  if batch % (parts(mesh) * microbatches):
    said = f", in {microbatches} microbatches" if microbatches > 1 else ""
    raise UserError(f"a global batch of {batch} does not divide over {parts(mesh)} devices (data x fsdp){said}")


def rows_of(batch: int, mesh: jax.sharding.Mesh) -> np.ndarray:
  """The rows of a global batch that this process's devices hold, in rising order.

  On a pod they need not lie together: the order of devices in the mesh follows the wires, not the hosts.
  """
  held = NamedSharding(mesh, BATCH).addressable_devices_indices_map((batch,)).values()
  return np.unique(np.concatenate([np.arange(batch)[index] for index in held if index is not None]))


def place_batch(batch: dict[str, np.ndarray], size: int, mesh: jax.sharding.Mesh) -> dict[str, jax.Array]:
  """The rows `rows_of(size, mesh)` of a global batch of `size` -> global arrays split over data and fsdp."""
  rows, sharding = rows_of(size, mesh), NamedSharding(mesh, BATCH)

  def put(local: np.ndarray) -> jax.Array:
    def shard(index: Any) -> np.ndarray:
      begin, end, _ = index[0].indices(size)
      first = int(np.searchsorted(rows, begin))
      return local[first : first + end - begin]

    return jax.make_array_from_callback((size, *local.shape[1:]), sharding, shard)

  return {name: put(np.asarray(local)) for name, local in batch.items()}


def spread(x: np.ndarray, mesh: jax.sharding.Mesh) -> jax.Array:
  """Rows that every process holds whole -> a global array split over data and fsdp.

  Padded with copies of the last row to a multiple of `parts(mesh)`: whoever reads the result cuts it.
  """
  x = np.asarray(x)
  missing = -len(x) % parts(mesh)
  x = np.concatenate([x, np.repeat(x[-1:], missing, 0)]) if missing else x
  return jax.make_array_from_callback(x.shape, NamedSharding(mesh, BATCH), lambda index: x[index])


def place(tree: Any, mesh: jax.sharding.Mesh) -> Any:
  """Numpy arrays of frozen networks, the same on every process -> global arrays (`frozen_shardings`)."""

  def put(array: Any, sharding: NamedSharding) -> jax.Array:
    array = np.asarray(array)
    return jax.make_array_from_callback(array.shape, sharding, lambda index: array[index])

  return jax.tree.map(put, tree, frozen_shardings(tree, mesh))
