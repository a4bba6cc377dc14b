"""From facts to a plan: memory against the chip, a bound on the time of a step, hours, and what binds.

The step's time is a roofline estimate, not a measurement:

  step = max(compute, memory, links, network)
  compute = FLOPs / (chips x peak x EFFICIENCY), float32 products at their own speed
  memory  = bytes that operations read and write in HBM (hlo.accessed) / HBM bandwidth
  links   = bytes that a device sends within its island / link speed      (ring formulas of collectives.py)
  network = bytes that a device sends beyond its island / network speed

i.e. perfect overlap of the four; without any it would be their sum, which is given too. EFFICIENCY is the
share of the peak that large matrix products reach, 0.5: an assumption, stated in every plan.
"""

import math
import os
from typing import Any

import jax

from latents.declare import Experiment
from latents.plan import collectives
from latents.plan.facts import Facts
from latents.plan.topology import Topology, island_of
from latents.train.build_step import Program
from latents.train.sharding import bytes_per_device

EFFICIENCY = 0.5
USABLE = 63 / 64  # of a TPU's HBM: XLA's limit on v5e is 15.75 of 16 GiB
SHARE = "XLA_PYTHON_CLIENT_MEM_FRACTION"  # of a GPU's memory that jax takes: 0.75 where it is not set


def memory(program: Program, facts: Facts, topology: Topology) -> dict[str, Any]:
  """Bytes per device by what they hold. All but temporaries and padding are exact, by the layouts."""
  state = program.state
  rest = {"step": state.step, "extra": state.extra}
  found = {
    "parameters": bytes_per_device(state.params),
    "optimiser": bytes_per_device(state.opt),
    "ema": bytes_per_device(state.ema),
    "other": bytes_per_device(rest),
    "frozen": bytes_per_device(program.frozen),
    "batch": bytes_per_device(program.batch),
  }
  exact = sum(found.values())
  # unused arguments (a frozen encoder beside cached latents) lie in memory, but are none of the compiler's
  padding = max(0, facts.arguments - exact)
  temporaries = facts.temporaries if facts.fits else max(0, facts.needed - exact)
  found |= {"padding": padding, "temporaries": temporaries}
  peak = exact + padding + temporaries
  out: dict[str, Any] = {**found, "peak": peak}
  if topology.chip:
    per_device = topology.chip.hbm * topology.chips / program.mesh.devices.size
    share = USABLE if topology.kind == "tpu" else float(os.environ.get(SHARE, 0.75))
    limit = facts.limit or int(per_device * share)
    out |= {"hbm": int(per_device), "usable": limit, "fits": bool(facts.fits and peak <= limit)}
  return out


def shrink(program: Program) -> dict[str, Any]:
  """Parameters, optimiser and EMA: bytes of one copy, bytes per device, and their ratio."""
  trees = (program.state.params, program.state.opt, program.state.ema)
  whole = sum(math.prod(a.shape) * a.dtype.itemsize for a in jax.tree.leaves(trees))
  held = bytes_per_device(trees)
  return {"whole": whole, "per_device": held, "ratio": round(whole / held, 2)}


def traffic(program: Program, facts: Facts, topology: Topology) -> dict[str, Any] | None:
  """The collectives by kind and mesh axis; None where the program did not compile."""
  found = facts.traffic()
  if found is None:
    return None
  return collectives.summary(found, dict(program.mesh.shape), island_of(topology, program.mesh))


def times(facts: Facts, sent: dict[str, Any] | None, topology: Topology, devices: int) -> dict[str, Any] | None:
  """Seconds of a step by what could bind it, an estimate (see the module); None for a topology without a chip."""
  chip = topology.chip
  if chip is None or sent is None:
    return None
  share = topology.chips / devices  # chips a device: 1/2 where a chip is two devices
  work = sum(n / (chip.single if k in ("float32", "float64") else 1.0) for k, n in facts.flops.items() if k != "while")
  bounds = {
    "compute": work / (topology.chips * chip.peak * EFFICIENCY),
    "memory": facts.accessed / (chip.bandwidth * share),
    "links": sent["link"] / (chip.link * share),
    "network": sent["network"] / (chip.network * share),
  }
  bound = max(bounds, key=lambda k: bounds[k])
  return {**bounds, "step": bounds[bound], "sum": sum(bounds.values()), "bound": bound, "efficiency": EFFICIENCY}


def whole_run(experiment: Experiment, stage: int, step: float, chips: int) -> dict[str, Any]:
  """Examples a second, hours and chip-hours of all steps of a stage."""
  declared = experiment.stage1 if stage == 1 else experiment.stage2
  assert declared is not None
  hours = declared.steps * step / 3600
  return {
    "examples_per_second": declared.batch / step,
    "steps": declared.steps,
    "hours": hours,
    "chip_hours": hours * chips,
  }
