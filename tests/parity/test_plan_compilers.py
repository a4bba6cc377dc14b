"""The planner with the compilers of TPU and GPU (extra `plan`), on the smallest program: they take it, and say what
the layout says."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent.parent

SCRIPT = """
import json, sys
from latents import plan
from latents.declare import Mesh
from latents.train import sharding
from tests import micro

sharding.SMALL = 0  # the smallest networks would be copied whole
topology = plan.start(sys.argv[1], int(sys.argv[2]))
print(json.dumps(plan.make(micro.experiment(mesh=Mesh(data=-1, fsdp=2)), int(sys.argv[3]), topology)))
"""


def planned(tmp_path, *words):
  path = os.pathsep.join([str(ROOT), *filter(None, [os.environ.get("PYTHONPATH")])])
  env = {**os.environ, "PYTHONPATH": path, "LATENTS_CACHE": str(tmp_path), "JAX_PLATFORMS": "cpu", "XLA_FLAGS": ""}
  words = [sys.executable, "-c", SCRIPT, *map(str, words)]
  done = subprocess.run(words, env=env, cwd=ROOT, capture_output=True, text=True, timeout=1800)
  assert done.returncode == 0, done.stderr[-3000:]
  return json.loads(done.stdout.splitlines()[-1])


def check(found, compiler):
  memory = found["memory"]
  assert compiler in found["compiler"] and not found["stand_in"] and memory["fits"]
  exact = sum(memory[k] for k in ("parameters", "optimiser", "ema", "other", "frozen", "batch"))
  assert exact <= memory["peak"] == exact + memory["padding"] + memory["temporaries"]
  assert memory["temporaries"] > 0 and found["time"]["step"] > 0
  assert {row["axes"] for row in found["collectives"]["rows"]} & {"fsdp", "data+fsdp"}
  assert found["collectives"]["in_unknown_loops"] == 0


def test_a_tpu_slice(tmp_path):
  found = planned(tmp_path, "v5e:2x2", 1, 2)
  check(found, "libtpu")
  assert found["collectives"]["network"] == 0 and found["chips"] == 4


def test_two_tpu_slices(tmp_path):
  found = planned(tmp_path, "v5e:2x2", 2, 2)
  check(found, "libtpu")
  assert found["chips"] == 8 and found["collectives"]["network"] > 0
  beyond = {row["axes"] for row in found["collectives"]["rows"] if row["network"]}
  assert beyond and all("data" in axes for axes in beyond)  # parameters are gathered within a slice


def test_gpus_with_convolutions(tmp_path):
  found = planned(tmp_path, "h100:1x2x2", 1, 1)
  check(found, "XLA:GPU")
  assert found["memory"]["hbm"] == pytest.approx(80e9)
