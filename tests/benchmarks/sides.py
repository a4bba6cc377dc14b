"""Two sides of a comparison, each in a process of its own, taking turns: what other jobs take from the machine they
take from both.

On CPU every process has one core and one thread and CPU seconds (`time.process_time`) are compared: on a shared machine
they are the figure to trust. On a GPU the wall time of what is waited for.
"""

import argparse
import json
import os
import resource
import statistics
import subprocess
import sys
import time
from collections.abc import Callable
from typing import Any

ROOT = os.path.abspath(os.path.join(os.path.dirname(os.path.abspath(__file__)), "..", ".."))
SIDES = ("latents", "torch")
Step = Callable[[str, str], tuple[Callable[[], Any], int]]
HEAD = (
  "| what | run | parameters, ours / torch | CPU ms, ours | torch | ratio (least, most) | wall ms, ours | torch "
  "| ratio | peak (resident) MiB, ours | torch | first s, ours |\n|---|" + "---:|" * 11
)


def inside(step: Callable[[], Any], parameters: int, device: str, side: str) -> None:
  """One side: two steps to warm up, then one for each line that comes in, and what it took goes out."""
  begin = time.perf_counter()
  losses = step()
  first = time.perf_counter() - begin
  step()
  print(json.dumps({"parameters": parameters, "first": first, "losses": losses}), flush=True)
  for _ in sys.stdin:
    at, on = time.process_time(), time.perf_counter()
    value = step()
    print(json.dumps({"cpu": time.process_time() - at, "wall": time.perf_counter() - on, "value": value}), flush=True)
  peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
  print(json.dumps({"peak": device_peak(side) if device == "gpu" else peak, "resident": resident()}), flush=True)


def resident() -> float:
  """MiB of this process that are in memory."""
  with open("/proc/self/statm") as file:
    return int(file.read().split()[1]) * os.sysconf("SC_PAGE_SIZE") / 2**20


def device_peak(side: str) -> float:
  """MiB that the accelerator's allocator has handed out at most."""
  if side == "torch":
    import torch  # pyright: ignore[reportMissingImports]

    return torch.cuda.max_memory_allocated() / 2**20
  import jax

  return (jax.devices()[0].memory_stats() or {}).get("peak_bytes_in_use", 0) / 2**20


def spawn(script: str, words: list[str], device: str, **options: Any) -> subprocess.Popen:
  """A script in a process of its own; on CPU with one core and one thread."""
  env = {**os.environ, "PYTHONPATH": ROOT, "TF_CPP_MIN_LOG_LEVEL": "2"}
  pin: Any = None
  if device == "cpu":
    flags = "--xla_cpu_multi_thread_eigen=false intra_op_parallelism_threads=1"
    env |= {"JAX_PLATFORMS": "cpu", "OMP_NUM_THREADS": "1", "XLA_FLAGS": f"{os.environ.get('XLA_FLAGS', '')} {flags}"}
    core = min(os.sched_getaffinity(0))
    pin = lambda: os.sched_setaffinity(0, {core})
  return subprocess.Popen([sys.executable, os.path.abspath(script), *words], env=env, preexec_fn=pin, **options)


def compare(script: str, task: str, device: str, steps: int) -> dict[str, Any]:
  """`script --inside SIDE --only TASK` of both sides in turn, a step each.

  {side: {parameters, first, cpu, wall (medians, seconds), peak, resident (MiB)}, "cpu_ratio", "wall_ratio"}: the
  ratios are medians over the pairs of steps, with the smallest and largest.
  """
  pipes: dict[str, Any] = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "text": True, "bufsize": 1}
  words = {side: ["--inside", side, "--only", task, "--device", device] for side in SIDES}
  made = {side: spawn(script, words[side], device, **pipes) for side in SIDES}
  found = {side: hear(process) for side, process in made.items()}
  pairs = []
  for _ in range(steps):
    for process in made.values():
      print("step", file=process.stdin, flush=True)
      pairs.append(hear(process))
  for side, process in made.items():
    assert process.stdin is not None
    process.stdin.close()
    found[side] |= hear(process)
    process.wait()
  one, two = pairs[::2], pairs[1::2]
  result: dict[str, Any] = found
  apart = differ(*(found[side]["losses"] for side in SIDES))
  if apart > 1e-4:
    raise SystemExit(f"the losses of step 1 differ by {apart:.1e}: {[found[side]['losses'] for side in SIDES]}")
  result["apart"] = apart
  for what in ("cpu", "wall"):
    for side, rows in zip(SIDES, (one, two), strict=True):
      found[side][what] = statistics.median(row[what] for row in rows)
    ratios = sorted(a[what] / b[what] for a, b in zip(one, two, strict=True))
    result[f"{what}_ratio"] = [statistics.median(ratios), ratios[0], ratios[-1]]
  return result


def differ(*losses: Any) -> float:
  """The largest relative difference of two sides' losses of step 1; 0 for one number, of sides that draw their own."""
  one, two = losses
  return max(abs(a - b) / max(abs(b), 1e-12) for a, b in zip(one, two, strict=True)) if isinstance(one, list) else 0.0


def hear(process: subprocess.Popen) -> dict[str, Any]:
  """The next line of a process."""
  assert process.stdout is not None
  line = process.stdout.readline()
  if not line:
    raise SystemExit("a side of the comparison failed: see above")
  return json.loads(line)


def parser(doc: str | None, tasks: tuple[str, ...], more: tuple[str, ...] = ()) -> argparse.ArgumentParser:
  """The flags of a script that compares `tasks`. more: words that --inside takes too."""
  made = argparse.ArgumentParser(description=(doc or "").splitlines()[0])
  made.add_argument("--json", action="store_true")
  made.add_argument("--steps", type=int, default=8, help="steps, or draws, of each side that are timed")
  made.add_argument("--runs", type=int, default=3, help="times that both sides are started")
  made.add_argument("--only", choices=tasks)
  made.add_argument("--device", choices=("cpu", "gpu"), default="cpu")
  made.add_argument("--inside", choices=(*SIDES, *more), help=argparse.SUPPRESS)
  return made


def begin(
  options: argparse.Namespace, script: str, tasks: tuple[str, ...], sides: dict[str, Step]
) -> dict[str, list[dict[str, Any]]]:
  """What a script does: be one side of a task ({}), or compare them (what `table` gives). sides: name -> (task, device)
  -> (step, parameters)."""
  tasks = tasks if options.only is None else (options.only,)
  if not options.inside:
    return table(script, tasks, options)
  inside(*sides[options.inside](tasks[0], options.device), options.device, options.inside)
  return {}


def table(script: str, tasks: tuple[str, ...], options: Any) -> dict[str, list[dict[str, Any]]]:
  """Every task `options.runs` times: rows as they come, then the spread of the ratios; or JSON with options.json. What
  `compare` gave of every run of each task."""
  if not options.json:
    print(HEAD, flush=True)
  results: dict[str, list[dict[str, Any]]] = {task: [] for task in tasks}
  for run in range(1, options.runs + 1):
    for task in tasks:
      results[task].append(compare(script, task, options.device, options.steps))
      if not options.json:
        print(row(task, run, results[task][-1]), flush=True)
  if options.json:
    print(json.dumps(results))
    return results
  what = "wall" if options.device == "gpu" else "cpu"
  for task, found in results.items():
    ratios = sorted(one[f"{what}_ratio"][0] for one in found)
    apart = max(one["apart"] for one in found)
    print(f"{task}: {statistics.median(ratios):.2f} of PyTorch's {what} time, {ratios[0]:.2f} to {ratios[-1]:.2f} "
          f"over {len(ratios)} runs" + (f"; losses of step 1 agree to {apart:.0e}" if apart else ""))  # fmt: skip
  return results


def row(task: str, run: int, found: dict[str, Any]) -> str:
  """A row of the table."""
  a, b = found["latents"], found["torch"]
  cells = [task, str(run), f"{a['parameters']:,} / {b['parameters']:,}"]
  for what in ("cpu", "wall"):
    middle, least, most = found[f"{what}_ratio"]
    cells += [f"{1e3 * a[what]:,.0f}", f"{1e3 * b[what]:,.0f}", f"{middle:.2f} ({least:.2f}, {most:.2f})"]
  cells += [f"{x['peak']:,.0f} ({x['resident']:,.0f})" for x in (a, b)]
  return "| " + " | ".join([*cells, f"{a['first']:.1f}"]) + " |"
