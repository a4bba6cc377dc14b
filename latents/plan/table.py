"""The plan as text for a terminal."""

from typing import Any

GIB, MIB = 2**30, 2**20
HELD = ("parameters", "optimiser", "ema", "other", "frozen", "batch", "padding", "temporaries", "peak")


def table(plan: dict[str, Any]) -> str:
  """All of a plan that people read, as lines."""
  mesh = " x ".join(f"{k} {v}" for k, v in plan["mesh"].items())
  slices = f", {plan['slices']} slices" if plan["slices"] > 1 else ""
  lines = [
    f"{plan['experiment']} stage {plan['stage']} on {plan['topology']}{slices}: {plan['chips']} chips, "
    f"{plan['devices']} devices as {mesh}",
    f"{plan['parameters']:,} parameters, batch {plan['batch']}",
    f"compiled by {plan['compiler']} in {plan['compile_seconds']:.0f} s",
  ]
  if "XLA:GPU" in plan["compiler"]:
    lines.append("kernels are XLA's defaults, not tried out; cuDNN's workspaces are not counted")
  if plan["stand_in"]:
    lines.append(
      "no GPU compiler: FLOPs, state, frozen and batch are exact; temporaries, collectives and what follows from "
      "them are the CPU compiler's for the same program and mesh, a stand-in"
    )
  return "\n".join([*lines, "", *_memory(plan), "", *_work(plan), "", *_time(plan), *_advice(plan)])


def _memory(plan: dict[str, Any]) -> list[str]:
  memory, state = plan["memory"], plan["state"]
  unit, name = (GIB, "GiB") if memory["peak"] >= GIB else (MIB, "MiB")
  lines = [f"per device, {name}"]
  lines += [f"  {held:<14}{memory[held] / unit:>10.3f}" for held in HELD if memory[held]]
  if "hbm" in memory:
    verdict = "fits" if memory["fits"] else "DOES NOT FIT"
    lines.append(f"  {'usable HBM':<14}{memory['usable'] / unit:>10.3f}   {verdict}")
  whole, ratio = state["whole"] / unit, state["ratio"]
  return [*lines, f"  parameters, optimiser, EMA: {whole:.3f} {name} in all, 1/{ratio} of it on a device"]


def _work(plan: dict[str, Any]) -> list[str]:
  flops, sent = plan["flops"], plan["collectives"]
  kinds = ", ".join(f"{k} {v / 1e12:.3g}" for k, v in flops["by_dtype"].items() if k != "while")
  lines = [f"FLOPs of a step (from the jaxpr): {flops['step'] / 1e12:.4g} T ({kinds}), "
           f"{flops['per_example'] / 1e9:.4g} G an example"]  # fmt: skip
  if flops["by_dtype"].get("while"):
    lines.append(f"  {flops['by_dtype']['while']} loops of unknown length were counted once")
  if sent is None:
    return [*lines, "collectives: not known, the program did not compile"]
  lines.append("a device sends in a step, MiB")
  lines.append(f"  {'kind':<20}{'along':<14}{'operations':>10}{'in its island':>15}{'beyond':>10}")
  for row in sent["rows"]:
    lines.append(
      f"  {row['kind']:<20}{row['axes']:<14}{row['operations']:>10}{row['link'] / MIB:>15.2f}"
      f"{row['network'] / MIB:>10.2f}"
    )
  if not sent["rows"]:
    lines.append("  nothing")
  if sent["network"]:
    lines.append("  'beyond' is data-centre traffic: between slices (TPU) or hosts (GPU)")
  return lines


def _time(plan: dict[str, Any]) -> list[str]:
  found, run = plan["time"], plan["run"]
  if found is None:
    return ["no estimate of time: no published figures for this device, or no program"]
  parts = ", ".join(f"{k} {found[k] * 1e3:.2f}" for k in ("compute", "memory", "links", "network"))
  return [
    f"ESTIMATE of a step: {found['step'] * 1e3:.2f} ms, bound by {found['bound']} (ms: {parts}; their sum "
    f"{found['sum'] * 1e3:.2f})",
    f"  the largest of FLOPs / (chips x peak x {found['efficiency']}), bytes accessed / HBM bandwidth, "
    "bytes sent / link speed, bytes sent beyond / network speed",
    f"  {run['examples_per_second']:,.0f} examples/s; {run['steps']:,} steps in {run['hours']:.1f} h, "
    f"{run['chip_hours']:,.0f} chip-hours",
  ]


def _advice(plan: dict[str, Any]) -> list[str]:
  return ["", "it does not fit:", *(f"  {line}" for line in plan["advice"])] if plan["advice"] else []
