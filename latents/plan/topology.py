"""From a topology's name to devices that a program can be compiled for, though none is there."""

import contextlib
import dataclasses
import importlib.util
import math
import os
import re
from typing import Any

import jax
from jax.experimental import topologies

from latents.errors import UserError, first_line, nearest
from latents.plan import gpu
from latents.plan.chips import CHIPS, Chip

EXAMPLES = (
  "v4:2x2x1", "v4:4x4x4", "v5e:2x2", "v5e:4x4", "v5e:8x8", "v5e:16x16", "v5p:2x2x1", "v5p:4x4x4", "v6e:2x4", "v6e:4x4",
  "v6e:8x8", "v6e:16x16", "tpu7x:2x2x2", "tpu7x:4x4x4", "h100:1x1x8", "h100:1x8x8", "h200:1x1x8", "b200:1x1x8", "cpu:8",
)  # fmt: skip

# libtpu asks for a machine of its own otherwise, and waits for an answer; the CUDA plugin looks for a driver
ALONE = {
  "TPU_SKIP_MDS_QUERY": "1",
  "TPU_ACCELERATOR_TYPE": "v5litepod-16",
  "TPU_WORKER_HOSTNAMES": "localhost",
  "TPU_WORKER_ID": "0",
  "ALLOW_MULTIPLE_LIBTPU_LOAD": "1",  # it holds a lock file as if there were a TPU to share
  "JAX_SKIP_CUDA_CONSTRAINTS_CHECK": "1",
}


@dataclasses.dataclass(frozen=True)
class Topology:
  """chips: all of them. island: chips that are joined by links (a TPU slice, a GPU host); chip None: host CPUs."""

  name: str
  generation: str
  slices: int
  chips: int
  island: int
  chip: Chip | None

  @property
  def kind(self) -> str:
    """tpu, gpu or cpu."""
    return self.chip.kind if self.chip else "cpu"

  @property
  def stand_in(self) -> bool:
    """Whether the CPU's compiler stands in for the GPU's, which is not installed."""
    return self.kind == "gpu" and not gpu.compiler()


def parse(name: str, slices: int = 1) -> Topology:
  """generation:AxB[xC] of one slice, times `slices`; h100:SLICESxHOSTSxGPUS; cpu:N. UserError naming the nearest."""
  match = re.fullmatch(r"(\w+):(\d+(?:x\d+)*)", name)
  generation = match.group(1) if match else name.split(":")[0]
  if match is None or generation not in (*CHIPS, "cpu"):
    raise UserError(f"unknown topology '{name}'{nearest(name, EXAMPLES)}; generations: {', '.join((*CHIPS, 'cpu'))}")
  shape = [int(n) for n in match.group(2).split("x")]
  chip = CHIPS.get(generation)
  wanted = {"tpu": (2, 3), "gpu": (3,), "cpu": (1,)}[chip.kind if chip else "cpu"]
  if len(shape) not in wanted or not math.prod(shape) or slices < 1:
    form = {"tpu": "v5e:4x4 or v5p:4x4x4", "gpu": "h100:SLICESxHOSTSxGPUS such as h100:1x1x8", "cpu": "cpu:8"}
    raise UserError(f"topology '{name}' is not of the form {form[chip.kind if chip else 'cpu']}")
  if chip is not None and chip.kind == "gpu":
    if slices != 1:
      raise UserError(f"--slices {slices}: the slices of '{name}' are the first number of its name")
    return Topology(name, generation, shape[0], math.prod(shape), shape[2], chip)
  return Topology(name, generation, slices, math.prod(shape) * slices, math.prod(shape), chip)


def start(name: str, slices: int = 1) -> Topology:
  """`parse`, and what jax reads when its backend starts: the CPU, with as many devices as the plan needs."""
  topology = parse(name, slices)
  for key, value in ALONE.items():
    os.environ.setdefault(key, value)
  jax.config.update("jax_platforms", "cpu")
  jax.config.update("jax_enable_compilation_cache", False)  # the plan keeps what it learns, not programs
  if topology.kind == "cpu" or topology.stand_in:
    with contextlib.suppress(RuntimeError):  # the backend runs already: a test, which may have enough devices
      jax.config.update("jax_num_cpu_devices", topology.chips)
  return topology


def devices(topology: Topology) -> list[Any]:
  """Devices to compile for; where there is no compiler for GPUs, this host's CPU cut into as many."""
  if topology.kind == "cpu" or topology.stand_in:
    found = jax.devices("cpu")
    if len(found) < topology.chips:
      raise UserError(f"{topology.name} needs {topology.chips} CPU devices, this process has started with {len(found)}")
    return found[: topology.chips]
  if topology.kind == "tpu" and importlib.util.find_spec("libtpu") is None:
    raise UserError("planning for a TPU needs its compiler: pip install -e '.[plan]'")
  options: dict[str, Any] = {"platform": "tpu", "topology_name": topology.name, "num_slices": topology.slices}
  if topology.kind == "gpu":
    shape, target = topology.name.split(":")[1], gpu.target(topology.generation)
    options = {"platform": "cuda", "topology_name": topology.name, "topology": shape, "target_config": target}
  try:
    return list(topologies.get_topology_desc(**options).devices)
  except Exception as error:  # whatever a compiler's plugin raises
    known = [n for n in EXAMPLES if n.startswith(f"{topology.generation}:")]
    reason = first_line(error)
    raise UserError(f"the compiler does not know {topology.name} ({reason}); try {', '.join(known)}") from error


def island_of(topology: Topology, mesh: jax.sharding.Mesh) -> list[int]:
  """For every position in the mesh (row-major): which slice (TPU) or host (GPU) its device stands in."""
  flat = list(mesh.devices.flat)
  if topology.kind == "tpu":
    return [getattr(d, "slice_index", 0) for d in flat]
  return [d.id // topology.island for d in flat]
