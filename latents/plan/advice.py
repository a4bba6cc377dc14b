"""What to change when a step does not fit. State is exact arithmetic by layouts; what is not checked says so."""

import dataclasses
from collections.abc import Iterator, Mapping
from typing import Any

import jax

from latents.declare import Experiment
from latents.plan import estimate
from latents.plan.topology import Topology
from latents.train import sharding
from latents.train.build_step import Program

GIB = 2**30
MORE = 0.9  # of a GPU's memory, which launch/local.py has jax take


def advise(experiment: Experiment, stage: int, program: Program, topology: Topology, memory: dict) -> list[str]:
  """Lines of advice for a plan that does not fit, the cheapest change first."""
  lines, over = [], memory["peak"] - memory["usable"]
  lines.append(f"{over / GIB:.2f} GiB too much on each device")
  if topology.kind == "gpu" and memory["usable"] < MORE * memory["hbm"]:
    room = int(MORE * memory["hbm"])
    verdict = "fits" if memory["peak"] <= room else "still too much"
    lines.append(f"{estimate.SHARE}={MORE}: {room / GIB:.2f} GiB usable: {verdict}")
  least = None
  for fsdp in larger(program, topology):
    held = state_bytes(program, fsdp)
    saved = _state(memory) - held
    least = memory["peak"] - saved
    enough = least <= memory["usable"]
    lines.append(
      f"--mesh.fsdp {fsdp}: state {_state(memory) / GIB:.2f} -> {held / GIB:.2f} GiB (exact), peak about "
      f"{least / GIB:.2f} GiB with the same temporaries: {'fits' if enough else 'still too much'}"
    )
    if enough:
      return lines
  base = (least or memory["peak"]) - memory["temporaries"]
  return lines + _smaller(experiment, stage, program, memory, base)


def _smaller(experiment: Experiment, stage: int, program: Program, memory: dict, base: int) -> list[str]:
  lines, room = [], memory["usable"] - base
  declared = experiment.stage1 if stage == 1 else experiment.stage2
  lines += [
    f"--stage{stage}.{path} block: blocks are recomputed in the backward pass; temporaries fall (not checked: plan it)"
    for path, value in switches(declared) if value == "none"
  ]  # fmt: skip
  parts = program.mesh.shape["data"] * program.mesh.shape["fsdp"]
  assert declared is not None
  own = declared.batch // parts
  at_once = own // declared.microbatches
  if room <= 0:
    lines.append(f"the state alone takes {base / GIB:.2f} GiB a device: more devices, or a chip with more memory")
  elif at_once > 1:
    fewer = max(1, int(at_once * room / memory["temporaries"]))
    split = next(n for n in range(2, own + 1) if own % n == 0 and own // n <= fewer)
    lines.append(
      f"--stage{stage}.microbatches {split}: {at_once} -> {own // split} examples a device at a time, if temporaries "
      "go with them (not checked: plan it)"
    )
    batch = fewer * declared.microbatches
    lines.append(f"or --stage{stage}.batch {batch * parts}: {own} -> {batch} examples a device")
    lines.append(f"or the same batch on {-(-at_once // fewer)} times as many devices")
  else:
    lines.append("one example a device at a time already: a chip with more memory, or a smaller model")
  return lines


def _state(memory: dict) -> int:
  return memory["parameters"] + memory["optimiser"] + memory["ema"] + memory["other"]


def larger(program: Program, topology: Topology) -> list[int]:
  """Larger sizes of fsdp on the same devices; on TPU and GPU within one island."""
  shape = program.mesh.shape
  most = topology.island * program.mesh.devices.size // topology.chips // shape["tensor"]
  free = shape["data"] * shape["fsdp"]
  return [n for n in range(shape["fsdp"] + 1, most + 1) if free % n == 0]


def state_bytes(program: Program, fsdp: int) -> int:
  """Bytes per device of the state on the same devices with another fsdp."""
  shape = program.mesh.shape
  mesh: Any = jax.sharding.AbstractMesh((shape["data"] * shape["fsdp"] // fsdp, fsdp, shape["tensor"]), sharding.AXES)
  state = jax.tree.map(lambda a: jax.ShapeDtypeStruct(a.shape, a.dtype), program.state)
  return sharding.bytes_per_device(sharding.abstract(state, sharding.shardings(state, mesh)))


def switches(tree: Any, path: str = "") -> Iterator[tuple[str, str]]:
  """(dotted path, value) of every `remat` field of a declaration."""
  if dataclasses.is_dataclass(tree) and not isinstance(tree, type):
    for field in dataclasses.fields(tree):
      if field.init and field.name not in ("parent", "name"):
        value, below = getattr(tree, field.name), f"{path}.{field.name}".strip(".")
        if field.name == "remat":
          yield below, value
        else:
          yield from switches(value, below)
  elif isinstance(tree, Mapping):
    for name, value in tree.items():
      yield from switches(value, f"{path}.{name}".strip("."))
