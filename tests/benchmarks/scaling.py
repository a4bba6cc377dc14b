"""Weak scaling over processes of this machine: python tests/benchmarks/scaling.py [--out FILE]

The same training step with the same batch a process, each process pinned to a core of its own: one alone; two
side by side that know nothing of each other, which is what sharing the machine costs; and two that train together,
which adds the exchange of gradients. Then the sums alone, in plain jax: the step's 132 arrays as 132 and as one. CPU
devices and gloo over loopback: a check that the path scales, no statement about pods. Writes {"points":
[{"processes", "step_s", "efficiency"}], "apart_s", "sum_s": {arrays: seconds}, "machine"}.
"""

import argparse
import json
import os
import statistics
import subprocess
import sys
import tempfile
from pathlib import Path

ROOT = Path(__file__).parents[2]
sys.path.insert(0, str(ROOT))

from launch.multiprocess import free_port  # noqa: E402  (after the path)

EXPERIMENT = '''
"""A step worth measuring: f4 autoencoder of 0.9M parameters in 132 arrays on 32 px digits. latents run"""
import dataclasses
from latents.data import Digits
from latents.encoders import ConvEncoder
from latents.decoders import ConvDecoder
from tests import micro

def experiment(scale: str = "tiny", batch: int = 16):
  made = micro.experiment(gan=False)
  model = made.stage1.model.clone(
    encoder=ConvEncoder(ch=32, mult=(1, 2, 2), blocks=1, out=8, mid_attention=False),
    decoder=ConvDecoder(ch=32, mult=(1, 2, 2), blocks=1, channels=1, mid_attention=False),
  )
  one = dataclasses.replace(
    made.stage1, data=Digits(size=32), model=model, batch=batch, steps=24, log_every=1, save_every=1000
  )
  return dataclasses.replace(made, stage1=one, stage2=None)
'''

NUMBERS = 900_000  # parameters of that autoencoder

SUM = """
import sys, time
import jax, numpy as np
from jax.sharding import Mesh, NamedSharding, PartitionSpec
arrays, size, port, number = map(int, sys.argv[1:])
jax.config.update("jax_cpu_collectives_implementation", "gloo")
jax.distributed.initialize(f"127.0.0.1:{port}", 2, number)
mesh = Mesh(np.array(jax.devices()), ("data",))
split, whole = NamedSharding(mesh, PartitionSpec("data")), NamedSharding(mesh, PartitionSpec())
xs = [jax.make_array_from_process_local_data(split, np.ones((1, size), np.float32)) for _ in range(arrays)]
program = jax.jit(lambda xs: [x.sum(0) for x in xs], out_shardings=whole)
jax.block_until_ready(program(xs))
begin = time.perf_counter()
for _ in range(10):
  jax.block_until_ready(program(xs))
print((time.perf_counter() - begin) / 10)
"""


def step_seconds(folder: Path, processes: int, batch: int, together: bool = True) -> float:
  """The median time of a step, the first four left out; of processes apart, the mean of their medians."""
  port, running, files = free_port(), [], []
  for number in range(processes):
    file = folder / (f"together{processes}" if together else f"apart{number}") / "scaling.py"
    file.parent.mkdir(exist_ok=True)
    file.write_text(EXPERIMENT)
    env = {**os.environ, "PYTHONPATH": str(ROOT), "JAX_PLATFORMS": "cpu"}
    words = ["taskset", "-c", str(number), sys.executable, "-m", "latents.main", "run", str(file), "--runs"]
    words += [str(file.parent), "--batch", str(batch * processes if together else batch)]
    if together:
      env |= {"LATENTS_COORDINATOR": f"127.0.0.1:{port}", "LATENTS_PROCESSES": str(processes)}
      env |= {"LATENTS_PROCESS": str(number)}
      words.append("--distributed")
    with open(folder / f"{file.parent.name}-{number}.txt", "w") as said:
      running.append(subprocess.Popen(words, cwd=ROOT, env=env, stdout=said, stderr=said))
    files.append(file.parent / "micro" / "metrics.jsonl")
  for number, code in enumerate([process.wait() for process in running]):
    if code:
      said = (folder / f"{files[number].parts[-3]}-{number}.txt").read_text()
      raise SystemExit(f"process {number} of the training ended with {code}: {said[-2000:]}")
  return statistics.mean(median(file) for file in dict.fromkeys(files))


def median(file: Path) -> float:
  """Of a log's seconds a step."""
  lines = map(json.loads, file.read_text().splitlines())
  return statistics.median(line["time/step_s"] for line in lines if line["step"] > 4)


def sum_seconds(arrays: int) -> float:
  """The time to sum `arrays` arrays, of NUMBERS float32 in all, over two processes."""
  words = [sys.executable, "-c", SUM, str(arrays), str(NUMBERS // arrays), str(free_port())]
  env = {**os.environ, "JAX_PLATFORMS": "cpu"}
  started = [
    subprocess.Popen(["taskset", "-c", str(n), *words, str(n)], env=env, stdout=subprocess.PIPE, text=True)
    for n in range(2)
  ]
  said = [process.communicate()[0] for process in started]
  if any(process.returncode for process in started):
    raise SystemExit("the sums failed: see above")
  return float(said[0].splitlines()[-1])  # gloo speaks first


def main() -> None:
  """The table, and the file."""
  words = argparse.ArgumentParser(description=__doc__)
  words.add_argument("--batch", type=int, default=16, help="examples a process")
  words.add_argument("--out", type=Path)
  given = words.parse_args()
  with tempfile.TemporaryDirectory() as folder:
    times = {count: step_seconds(Path(folder), count, given.batch) for count in (1, 2)}
    apart = step_seconds(Path(folder), 2, given.batch, together=False)
  points = [{"processes": n, "step_s": round(t, 4), "efficiency": round(times[1] / t, 3)} for n, t in times.items()]
  for point in points:
    print(point)
  sums = {arrays: sum_seconds(arrays) for arrays in (132, 1)}
  sharing, exchange = apart / times[1], times[2] / apart
  print(f"two apart: {apart:.4f} s a step; sharing the machine x {sharing:.2f}, exchange x {exchange:.2f}")
  for arrays, seconds in sums.items():
    print(f"{NUMBERS:,} numbers in {arrays} arrays: {1e3 * seconds:.0f} ms to sum over two processes")
  if given.out:
    machine = f"{os.cpu_count()} CPU cores, a process pinned to each, gloo over loopback"
    found = {"points": points, "apart_s": round(apart, 4), "machine": machine}
    found["sum_s"] = {arrays: round(seconds, 4) for arrays, seconds in sums.items()}
    given.out.write_text(json.dumps(found, indent=1) + "\n")


if __name__ == "__main__":
  main()
