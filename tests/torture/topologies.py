"""One training on several topologies: python -m tests.torture.topologies [--all]

Real processes on this machine, each with fake devices; a GAN, an EMA codebook or a KL bottleneck, a prior
on cached latents. Prints the largest relative difference of any logged value and of any array of the
weights from those of one process with one device.
"""

import argparse
import json
import tempfile
from pathlib import Path

import numpy as np

from tests.torture.faults import Attempt, Topology, compare, weights

EXPERIMENT = '''
"""For tests. latents run"""
import dataclasses
from latents.declare import Mesh
from tests import micro

def experiment(scale: str = "tiny", codes: bool = False, fsdp: int = 1, batch: int = 8):
  made = micro.experiment(codes=codes, mesh=Mesh(fsdp=fsdp))
  one = dataclasses.replace(made.stage1, steps=6, batch=batch)
  two = dataclasses.replace(made.stage2, steps=6, cache=True)
  return dataclasses.replace(made, stage1=one, stage2=two)
'''


def train(folder: Path, topology: Topology, *flags: str) -> Path:
  """The finished run's folder."""
  name = f"{topology.processes}x{topology.devices}{''.join(flags)}".replace("--", "-")
  file = folder / name / "topology.py"
  file.parent.mkdir()
  file.write_text(EXPERIMENT)
  attempt = Attempt(file, topology, flags)
  codes = attempt.end(1800)
  assert set(codes) == {0}, (codes, "".join(attempt.lines)[-3000:])
  return file.parent / "micro"


def logged(run: Path) -> dict[tuple, float]:
  """(stage, step, name) -> value."""
  lines = map(json.loads, (run / "metrics.jsonl").read_text().splitlines())
  return {(li["stage"], li["step"], k): v for li in lines for k, v in li.items() if k.startswith("train/")}


def distance(a: Path, b: Path) -> float:
  """The largest relative difference of a logged value (those below 0.01 count as 0.01)."""
  left, right = logged(a), logged(b)
  assert left.keys() == right.keys() and len(left) > 100
  return max(abs(left[k] - right[k]) / max(abs(left[k]), 0.01) for k in left)


def codebook(run: Path) -> np.ndarray:
  """How often each code was used, averaged: [V]."""
  (found,) = [v for k, v in weights(run).items() if k.startswith("stage1") and k.endswith("/counts")]
  return found


def main(argv: list[str] | None = None) -> None:
  """The table."""
  words = argparse.ArgumentParser(description=__doc__)
  words.add_argument("--all", action="store_true", help="also KL, and parameters split by fsdp")
  everything = words.parse_args(argv).all
  shapes = [Topology(1, 8), Topology(2, 4), Topology(4, 2)]
  kinds = {"codes": ("--codes", "True")} | ({"kl": (), "kl, fsdp 4": ("--fsdp", "4")} if everything else {})
  print("| system | processes x devices | logged values | weights |\n|---|---|---|---|")
  alone = Path()
  with tempfile.TemporaryDirectory() as folder:
    for kind, flags in kinds.items():
      if kind != "kl, fsdp 4":
        alone = train(Path(folder), Topology(1, 1), *(flags if kind == "codes" else ()))
      for shape in shapes:
        run = train(Path(folder), shape, *flags)
        values, arrays = distance(alone, run), compare(weights(alone), weights(run), bitwise=False)
        print(f"| {kind} | {shape.processes} x {shape.devices} | {values:.1e} | {arrays:.1e} |", flush=True)


if __name__ == "__main__":
  main()
