"""What there is to know of a step's program: counted from its jaxpr, and read from what the compiler made of it."""

import dataclasses
import hashlib
import importlib.metadata
import json
import os
import re
import sys
import time
from pathlib import Path
from typing import Any

import jax

from latents.errors import UserError
from latents.machine import environment
from latents.plan import collectives, flops, gpu, hlo
from latents.plan.topology import Topology
from latents.train.build_step import Program, once

FORMAT = 2
SCALE = {"": 1, "K": 2**10, "M": 2**20, "G": 2**30, "T": 2**40}


@dataclasses.dataclass(frozen=True)
class Facts:
  """Of a compiled step, all per device.

  flops: whole step, by dtype of the factors. compiler: which made the rest. temporaries: bytes at the peak beside
  arguments. arguments: bytes with the padding of layouts, of those that the step reads. accessed: bytes of
  `hlo.accessed`. fits: it compiled; else needed and limit: the
  bytes that the compiler says the step takes in all, and may take.
  exchanges: collectives, None where the program did not fit and there is no text.
  """

  flops: dict[str, int]
  compiler: str
  seconds: float
  temporaries: int = 0
  arguments: int = 0
  accessed: int = 0
  needed: int = 0
  limit: int = 0
  fits: bool = True
  exchanges: list | None = None

  def traffic(self) -> list[collectives.Collective] | None:
    """The collectives, as they were read."""
    return None if self.exchanges is None else collectives.restored(self.exchanges)


def find(program: Program, topology: Topology) -> Facts:
  """Trace, lower, and compile or recall what the compiler said of the same program."""
  with jax.set_mesh(program.mesh):
    traced = program.step.function.trace(program.state, program.frozen, program.batch)
    counted = flops.count(traced.jaxpr)
    lowered = traced.lower()
  options = {"tpu": None, "gpu": gpu.OPTIONS, "cpu": None}[program.mesh.devices.flat[0].platform]
  options = once(program.mesh) if topology.stand_in else options
  compiler = _compiler(topology)
  path = _path(lowered.as_text(), topology, compiler, options)
  if path.exists():
    known = json.loads(path.read_text())
  else:
    print(f"latents: compiling with {compiler} (minutes for a large model; then recalled)", file=sys.stderr, flush=True)
    known = _compile(lowered, options, program.mesh.devices.size, topology.slices if topology.kind == "tpu" else 1)
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_suffix(f".{os.getpid()}")
    temporary.write_text(json.dumps(known))
    temporary.replace(path)
  return Facts(flops=dict(counted), compiler=compiler, **known)


def _compiler(topology: Topology) -> str:
  if topology.kind == "tpu":
    return f"libtpu {importlib.metadata.version('libtpu')} for {topology.slices} x {topology.name}"
  if topology.kind == "gpu" and not topology.stand_in:
    return f"XLA:GPU of jax-cuda13-pjrt {importlib.metadata.version('jax-cuda13-pjrt')} for {topology.name}"
  return f"XLA:CPU of jaxlib {importlib.metadata.version('jaxlib')} for {topology.chips} devices"


def _path(text: str, topology: Topology, compiler: str, options: Any) -> Path:
  parts = [FORMAT, text, topology.name, topology.slices, compiler, importlib.metadata.version("jaxlib"), options]
  name = hashlib.sha256(json.dumps(parts, sort_keys=True).encode()).hexdigest()[:24]
  return environment.cache_folder() / "plan" / f"{name}.json"


def _compile(lowered: Any, options: Any, devices: int, slices: int) -> dict[str, Any]:
  start = time.perf_counter()
  try:
    compiled = lowered.compile(compiler_options=options)
  except jax.errors.JaxRuntimeError as error:
    return _too_large(str(error)) | {"seconds": round(time.perf_counter() - start, 1)}
  memory, module = compiled.memory_analysis(), hlo.Module(compiled.as_text())
  fresh = max(0, memory.output_size_in_bytes - memory.alias_size_in_bytes)
  return {
    "temporaries": int(memory.temp_size_in_bytes + fresh + memory.generated_code_size_in_bytes),
    "arguments": int(memory.argument_size_in_bytes),
    "accessed": int(hlo.accessed(module)),
    "exchanges": collectives.merged(collectives.read(module, devices, slices)),
    "seconds": round(time.perf_counter() - start, 1),
  }


def _too_large(message: str) -> dict[str, Any]:
  """The TPU compiler refuses what does not fit, and says how much it would take: arguments and all, whatever it
  calls it."""
  number = r"([\d.]+)([KMGT]?)"
  said = re.search(rf"\({number}\) exceeds available HBM \({number}\)", message)
  said = said or re.search(rf"Used {number} of {number} hbm", message)
  if said is None:
    raise UserError(f"the compiler failed: {message.splitlines()[0]}")
  needed, unit, limit, of = said.groups()
  return {
    "fits": False,
    "needed": int(float(needed) * SCALE[unit]),
    "limit": int(float(limit) * SCALE[of]),
  }
