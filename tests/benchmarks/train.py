"""Time and memory of a training step beside PyTorch, in one run.

  taskset -c 1 python tests/benchmarks/train.py [--json] [--steps 8] [--only autoencoder|dit] [--device cpu|gpu]
  taskset -c 1 python tests/benchmarks/train.py --allocator       what glibc's setting saves, and the memory it takes

autoencoder: stage 1, f8, ch 32, 64 x 64 x 3, L2 + KL, against diffusers' AutoencoderKL of equal widths.
dit: stage 2, DiT-S/2 on latents of 16 x 16 x 4, flow matching, against a plain DiT in PyTorch.
Both: batch 8, float32, AdamW of equal numbers, every side in a process of its own, the two taking turns. Ours is the
program that `latents run` trains with (`build_step`): it also computes the norm of the gradients, refuses updates that
are not finite, which the reference does not. Both keep an average of the weights; PyTorch's AdamW is the fused one.

On CPU every process has one core and one thread, glibc's allocator is told to keep memory (ours: as the command line
does; see `latents.machine.environment`), and CPU seconds (`time.process_time`) are compared: on a shared machine
they are the figure to trust. With --device gpu the wall time of steps that are waited for; needs jax[cuda13] and torch
with CUDA.
"""

import argparse
import itertools
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
sys.path.insert(0, ROOT)

BATCH, LR, CLASSES = 8, 1e-4, 8
TASKS, SIDES = ("autoencoder", "dit"), ("latents", "torch")
ALLOCATORS: dict[str, dict[str, Any]] = {
  "glibc's default": {"keep": False, "rhythm": -1},
  "kept": {"rhythm": -1},
  "kept, returned every 8 steps": {"rhythm": 8},
}


def latents_step(task: str, device: str, keep: bool = True, rhythm: int = 0) -> tuple[Callable[[], Any], int]:
  """(one step, waited for; number of parameters) of our program.

  keep: glibc keeps what is freed. rhythm: steps after which it is given back; 0 only after the first, as before the
  training loop's first checkpoint; -1 never.
  """
  from latents.machine import environment

  if device == "cpu" and keep:
    environment.keep_memory()
  import jax
  import jax.numpy as jnp
  import numpy as np

  from latents.autoencoders import Autoencoder
  from latents.backbones.dit import dit_s
  from latents.bottlenecks import KL
  from latents.data import Shapes
  from latents.declare import Experiment, Mesh, Stage1, Stage2
  from latents.decoders import ConvDecoder
  from latents.encoders import ConvEncoder
  from latents.losses import L2, Weight
  from latents.optim import Adam
  from latents.priors import FlowPrior
  from latents.train import sharding
  from latents.train.build_step import build_step

  data = Shapes(size=64 if task == "autoencoder" else 128)
  model = Autoencoder(
    encoder=ConvEncoder(ch=32, mult=(1, 2, 4, 4), blocks=2, out=8),
    bottleneck=KL(dim=4),
    decoder=ConvDecoder(ch=32, mult=(1, 2, 4, 4), blocks=2),
  )
  fixed = {"optimizer": Adam(lr=LR, decay=0.01), "steps": 1000, "batch": BATCH}
  one = Stage1(data=data, model=model, losses={"l2": L2(), "kl": Weight(1e-6)}, **fixed)
  two = Stage2(data=data, prior=FlowPrior(backbone=dit_s(2, classes=CLASSES)), **fixed)
  experiment = Experiment(name="benchmark", stage1=one, stage2=two)
  mesh = sharding.make_mesh(Mesh(), jax.devices()[:1])
  stored = jax.ShapeDtypeStruct((16, 16, 8), jnp.float32)  # mean and log-variance of the posterior
  program = build_step(experiment, 1, mesh) if task == "autoencoder" else build_step(experiment, 2, mesh, stored=stored)
  rng = np.random.default_rng(0)
  rows = np.arange(BATCH, dtype=np.int32)
  batch: dict[str, Any] = {"index": rows, "label": rows % CLASSES}
  if task == "autoencoder":
    batch["x"] = rng.integers(0, 256, (BATCH, 64, 64, 3), dtype=np.uint8)
  else:
    batch["stored"] = rng.normal(size=(BATCH, 16, 16, 8)).astype(np.float32)
  frozen = jax.tree.map(lambda a: jnp.ones(a.shape, a.dtype), program.frozen)
  held, done = [program.init()], itertools.count(1)

  def step() -> float:
    held[0], scalars = program.step(held[0], frozen, sharding.place_batch(batch, BATCH, mesh))
    total = float(scalars["total"])
    number = next(done)
    if rhythm >= 0 and (number == 1 or (rhythm and number % rhythm == 0)):
      environment.return_memory()
    return total

  return step, sum(a.size for a in jax.tree.leaves(program.state.params))


def torch_step(task: str, device: str) -> tuple[Callable[[], Any], int]:
  """The same of PyTorch."""
  import torch  # pyright: ignore[reportMissingImports]

  from tests.benchmarks import reference

  if device == "cpu":
    torch.set_num_threads(1)
  place = torch.device("cuda" if device == "gpu" else "cpu")
  torch.backends.cuda.matmul.allow_tf32 = torch.backends.cudnn.allow_tf32 = True  # as jax does by default
  torch.manual_seed(0)
  model, loss = reference.autoencoder() if task == "autoencoder" else reference.dit(CLASSES)
  model.to(place)
  optimizer = torch.optim.AdamW(model.parameters(), lr=LR, weight_decay=0.01, fused=True)
  average = [p.detach().clone() for p in model.parameters()]
  data = [torch.from_numpy(a).to(place) for a in reference.data(task, BATCH, CLASSES)]

  def step() -> float:
    optimizer.zero_grad(set_to_none=True)
    value = loss(model, *data)
    value.backward()
    optimizer.step()
    torch._foreach_lerp_(average, [p.detach() for p in model.parameters()], 0.001)
    return float(value.detach())

  return step, sum(p.numel() for p in model.parameters())


def inside(side: str, task: str, device: str) -> None:
  """One side, in a process of its own: two steps to warm up, then one for each line that comes in."""
  step, parameters = (latents_step if side == "latents" else torch_step)(task, device)
  begin = time.perf_counter()
  step()
  first = time.perf_counter() - begin
  step()
  print(json.dumps({"parameters": parameters, "first": first}), flush=True)
  for _ in sys.stdin:
    at, on = time.process_time(), time.perf_counter()
    loss = step()
    print(json.dumps({"cpu": time.process_time() - at, "wall": time.perf_counter() - on, "loss": loss}), flush=True)
  peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
  print(json.dumps({"peak": device_peak(side) if device == "gpu" else peak, "resident": resident()}), flush=True)


def resident() -> float:
  """MiB of this process that are in memory."""
  with open("/proc/self/statm") as file:
    return int(file.read().split()[1]) * os.sysconf("SC_PAGE_SIZE") / 2**20


def allocator(task: str, name: str, steps: int) -> None:
  """A row of the other table, in a process of its own."""
  step, _ = latents_step(task, "cpu", **ALLOCATORS[name])
  held, times = [], []
  for _ in range(steps):
    begin = time.process_time()
    step()
    times.append(time.process_time() - begin)
    held.append(resident())
  peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
  cells = [task, name, f"{1e3 * statistics.median(times[2:]):,.0f}", f"{held[1]:,.0f}", f"{max(held):,.0f}"]
  print("| " + " | ".join([*cells, f"{held[-1]:,.0f}", f"{peak:,.0f}"]) + " |", flush=True)


def device_peak(side: str) -> float:
  """MiB that the accelerator's allocator has handed out at most."""
  if side == "torch":
    import torch  # pyright: ignore[reportMissingImports]

    return torch.cuda.max_memory_allocated() / 2**20
  import jax

  return (jax.devices()[0].memory_stats() or {}).get("peak_bytes_in_use", 0) / 2**20


def start(side: str, task: str, device: str) -> subprocess.Popen:
  """The process of one side, on one core with one thread."""
  command = ["--inside", side, "--only", task, "--device", device]
  return spawn(command, device, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, bufsize=1)


def spawn(words: list[str], device: str, **options: Any) -> subprocess.Popen:
  """This file in a process of its own."""
  env = {**os.environ, "PYTHONPATH": ROOT, "TF_CPP_MIN_LOG_LEVEL": "2"}
  pin: Any = None
  if device == "cpu":
    flags = "--xla_cpu_multi_thread_eigen=false intra_op_parallelism_threads=1"
    env |= {"JAX_PLATFORMS": "cpu", "OMP_NUM_THREADS": "1", "XLA_FLAGS": f"{os.environ.get('XLA_FLAGS', '')} {flags}"}
    core = min(os.sched_getaffinity(0))
    pin = lambda: os.sched_setaffinity(0, {core})
  return subprocess.Popen([sys.executable, os.path.abspath(__file__), *words], env=env, preexec_fn=pin, **options)


def compare(task: str, device: str, steps: int) -> dict[str, Any]:
  """Both sides in turn, a step each: what other jobs take from the machine they take from both.

  {side: {parameters, first, cpu, wall (medians, seconds), peak, resident (MiB)}, "cpu_ratio", "wall_ratio"}: the
  ratios are medians over the pairs of steps, with the smallest and largest.
  """
  made = {side: start(side, task, device) for side in SIDES}
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
  for what in ("cpu", "wall"):
    for side, rows in zip(SIDES, (one, two), strict=True):
      found[side][what] = statistics.median(row[what] for row in rows)
    ratios = sorted(a[what] / b[what] for a, b in zip(one, two, strict=True))
    result[f"{what}_ratio"] = [statistics.median(ratios), ratios[0], ratios[-1]]
  return result


def hear(process: subprocess.Popen) -> dict[str, Any]:
  """The next line of a process."""
  assert process.stdout is not None
  line = process.stdout.readline()
  if not line:
    raise SystemExit("a side of the comparison failed: see above")
  return json.loads(line)


def main() -> None:
  """The command line."""
  parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
  parser.add_argument("--json", action="store_true")
  parser.add_argument("--steps", type=int, default=8, help="steps of each side that are timed")
  parser.add_argument("--only", choices=TASKS)
  parser.add_argument("--device", choices=("cpu", "gpu"), default="cpu")
  parser.add_argument("--allocator", action="store_true", help="24 steps of ours with each setting of glibc")
  parser.add_argument("--inside", choices=(*SIDES, *ALLOCATORS), help=argparse.SUPPRESS)
  options = parser.parse_args()
  tasks = TASKS if options.only is None else (options.only,)
  if options.inside in ALLOCATORS:
    allocator(tasks[0], options.inside, 24)
    return
  if options.inside:
    inside(options.inside, tasks[0], options.device)
    return
  if options.allocator:
    print("| step | freed memory | CPU ms | MiB after 2 steps | at most after a step | after 24 | peak |")
    print("|---|---|" + "---:|" * 5, flush=True)
    for task in tasks:
      for name in ALLOCATORS:
        if spawn(["--inside", name, "--only", task], "cpu").wait():
          raise SystemExit("a process failed: see above")
    return
  if not options.json:
    print("| step | parameters, ours / torch | CPU ms, ours | torch | ratio (least, most) | wall ms, ours | torch "
          "| ratio | peak (resident) MiB, ours | torch | first step s, ours |")  # fmt: skip
    print("|---|---|" + "---:|" * 9)
  results = {}
  for task in tasks:
    results[task] = compare(task, options.device, options.steps)
    if not options.json:
      print(line(task, results[task]), flush=True)
  if options.json:
    print(json.dumps(results))


def line(task: str, found: dict[str, Any]) -> str:
  """A row of the table."""
  a, b = found["latents"], found["torch"]
  cells = [task, f"{a['parameters']:,} / {b['parameters']:,}"]
  for what in ("cpu", "wall"):
    middle, least, most = found[f"{what}_ratio"]
    cells += [f"{1e3 * a[what]:,.0f}", f"{1e3 * b[what]:,.0f}", f"{middle:.2f} ({least:.2f}, {most:.2f})"]
  cells += [f"{x['peak']:,.0f} ({x['resident']:,.0f})" for x in (a, b)]
  return "| " + " | ".join([*cells, f"{a['first']:.1f}"]) + " |"


if __name__ == "__main__":
  main()
