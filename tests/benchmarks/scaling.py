"""Weak scaling over processes of this machine: python tests/benchmarks/scaling.py [--out FILE]

The same training step with the same batch a process, on one process and on two, each pinned to a core of
its own: what the exchange of gradients costs. CPU devices and gloo over loopback: a check that the path
scales, no statement about pods. Writes {"points": [{"processes", "step_s", "efficiency"}], "machine"}.
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
"""A step worth measuring: f4 autoencoder of 1.3M parameters on 32 px digits. latents run"""
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


def step_seconds(folder: Path, processes: int, batch: int) -> float:
  """The median time of a step, the first four left out."""
  file, port, running = folder / f"scaling{processes}" / "scaling.py", free_port(), []
  file.parent.mkdir()
  file.write_text(EXPERIMENT)
  for number in range(processes):
    env = {**os.environ, "PYTHONPATH": str(ROOT), "JAX_PLATFORMS": "cpu", "LATENTS_COORDINATOR": f"127.0.0.1:{port}"}
    env |= {"LATENTS_PROCESSES": str(processes), "LATENTS_PROCESS": str(number)}
    words = ["taskset", "-c", str(number), sys.executable, "-m", "latents.main", "run", str(file), "--runs"]
    words += [str(file.parent), "--batch", str(batch * processes), "--distributed"]
    running.append(subprocess.Popen(words, cwd=ROOT, env=env, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL))
  codes = [process.wait() for process in running]
  if any(codes):
    raise SystemExit(f"the training ended with {codes}")
  lines = map(json.loads, (file.parent / "micro" / "metrics.jsonl").read_text().splitlines())
  return statistics.median(line["time/step_s"] for line in lines if line["step"] > 4)


def main() -> None:
  """The table, and the file."""
  words = argparse.ArgumentParser(description=__doc__)
  words.add_argument("--batch", type=int, default=16, help="examples a process")
  words.add_argument("--out", type=Path)
  given = words.parse_args()
  with tempfile.TemporaryDirectory() as folder:
    times = {count: step_seconds(Path(folder), count, given.batch) for count in (1, 2)}
  points = [{"processes": n, "step_s": round(t, 4), "efficiency": round(times[1] / t, 3)} for n, t in times.items()]
  for point in points:
    print(point)
  if given.out:
    machine = f"{os.cpu_count()} CPU cores, a process pinned to each, gloo over loopback"
    given.out.write_text(json.dumps({"points": points, "machine": machine}, indent=1) + "\n")


if __name__ == "__main__":
  main()
