"""`latents plan`: what it says of memory is what real arrays take; bad input is one line; advice is arithmetic."""

import dataclasses
import functools
import json
import math
import os
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from experiments.images import ldm_kl
from latents import main, plan
from latents.declare import Mesh
from latents.errors import UserError
from latents.plan import advice
from latents.train import build_step, sharding
from tests import micro

ROOT = Path(__file__).parent.parent


def run(tmp_path, script, **more):
  """A script in a process of its own, whose jax has not started; its last line as JSON, and stderr."""
  env = {**os.environ, "PYTHONPATH": str(ROOT), "LATENTS_CACHE": str(tmp_path / "cache"), **more}
  done = subprocess.run([sys.executable, "-c", script], env=env, cwd=ROOT, capture_output=True, text=True, timeout=1200)
  assert done.returncode == 0, done.stderr[-3000:]
  return json.loads(done.stdout.splitlines()[-1]), done.stderr


REAL = """
import json, sys
from latents import plan
topology = plan.start("cpu:8")
import dataclasses, jax, numpy as np
from latents.data import batches
from latents.declare import Mesh
from latents.train import sharding
from tests import micro

sharding.SMALL = 0  # the smallest networks would be copied whole
sharding.FROZEN = 0
made = micro.experiment(mesh=Mesh(data=2, fsdp=4))
found = plan.make(made, 2, topology)
again = plan.make(made, 2, topology)
program = plan.build(made, 2, topology)
state = program.init()
zeros = lambda tree: jax.tree.map(lambda a: np.zeros(a.shape, a.dtype), tree)
frozen = sharding.place(zeros(program.frozen), program.mesh)
with batches(made.stage2.data, split="train", batch=made.stage2.batch, seed=0) as stream:
  batch = sharding.place_batch(next(stream), made.stage2.batch, program.mesh)

def held(tree):
  sums = {d: 0 for d in jax.devices()}
  for array in jax.tree.leaves(tree):
    for shard in array.addressable_shards:
      sums[shard.device] += shard.data.nbytes
  assert len(set(sums.values())) == 1
  return sums[jax.devices()[0]]

real = {"parameters": state.params, "optimiser": state.opt, "ema": state.ema, "frozen": frozen, "batch": batch,
        "other": {"step": state.step, "extra": state.extra}}
print(json.dumps({"plan": found, "again": again, "real": {k: held(v) for k, v in real.items()}}))
"""


def test_planned_bytes_are_those_of_real_arrays(tmp_path):
  found, said = run(tmp_path, REAL)
  planned, real = found["plan"]["memory"], found["real"]
  assert {k: planned[k] for k in real} == real
  assert all(real.values())
  assert planned["peak"] == sum(real.values()) + planned["padding"] + planned["temporaries"]
  assert found["plan"] == found["again"] and said.count("compiling") == 1  # the second is recalled
  assert found["plan"]["mesh"] == {"data": 2, "fsdp": 4, "tensor": 1}
  assert found["plan"]["collectives"]["link"] > 0 and found["plan"]["time"] is None
  whole = found["plan"]["state"]["whole"]
  assert whole / 4 <= found["plan"]["state"]["per_device"] <= whole / 3.5


PEAK = """
import json, re
from latents import plan
topology = plan.start("cpu:1")
import dataclasses, jax, numpy as np
from latents.backbones import DiT
from latents.train import sharding
from tests import micro

made = micro.experiment(gan=False)
data = dataclasses.replace(made.stage1.data, size=32)
prior = made.stage2.prior.clone(backbone=DiT(depth=2, width=256, heads=2, patch=1, classes=10))
one, two = (dataclasses.replace(stage, data=data) for stage in (made.stage1, made.stage2))
made = dataclasses.replace(made, stage1=one, stage2=dataclasses.replace(two, batch=192, prior=prior))
planned = plan.make(made, 2, topology)["memory"]["temporaries"]
program = plan.build(made, 2, topology)
zeros = {k: np.zeros(a.shape, a.dtype) for k, a in program.batch.items()}
state, batch = program.init(), sharding.place_batch(zeros, 192, program.mesh)
frozen = sharding.place(jax.tree.map(lambda a: np.ones(a.shape, a.dtype), program.frozen), program.mesh)
ready = program.step.lower(state, frozen, batch).compile()
status = lambda key: int(re.search(key + r":\\s+(\\d+) kB", open("/proc/self/status").read()).group(1)) * 1024
jax.block_until_ready((state, frozen, batch))
before, files = status("VmRSS"), status("RssFile")
open("/proc/self/clear_refs", "w").write("5")  # the peak begins anew
state, logs = ready(state, frozen, batch)
jax.block_until_ready((state, logs))
print(json.dumps({"planned": planned, "measured": status("VmHWM") - before - (status("RssFile") - files)}))
"""


@pytest.mark.slow
def test_planned_temporaries_are_what_a_step_takes(tmp_path):
  """Resident memory, less the pages of code, at the peak of the first step less that before it: one CPU device."""
  returned = {"MALLOC_MMAP_THRESHOLD_": "65536", "MALLOC_TRIM_THRESHOLD_": "65536"}  # freed memory goes back at once
  found, _ = run(tmp_path, PEAK, **returned)
  assert found["planned"] > 700 * 2**20
  assert found["measured"] == pytest.approx(found["planned"], rel=0.05)


def states():
  """The states of LDM's stages at paper size, as shapes."""
  made = ldm_kl.experiment("paper")
  batch = {"x": jax.ShapeDtypeStruct((1, 256, 256, 3), jnp.uint8)}
  one = jax.eval_shape(functools.partial(micro.first_state, made.stage1, {}), batch)
  init = functools.partial(micro.first_state, made.stage2, model=made.stage1.model)
  batch["label"] = jax.ShapeDtypeStruct((1,), jnp.int32)
  return {1: one, 2: jax.eval_shape(init, build_step.abstract_autoencoder(made), batch)}


def test_state_falls_with_the_number_of_devices():
  for number, state in states().items():
    trees = (state.params, state.opt, state.ema)
    whole = sum(math.prod(a.shape) * a.dtype.itemsize for a in jax.tree.leaves(trees))
    for n in (8, 16, 64):
      mesh = jax.sharding.AbstractMesh((1, n, 1), sharding.AXES)
      held = sharding.bytes_per_device(sharding.abstract(trees, sharding.shardings(trees, mesh)))
      assert whole / held >= 0.95 * n, f"stage {number} on {n} devices: 1/{whole / held:.2f}"


def test_frozen_networks_are_split_from_a_size_on():
  mesh = jax.sharding.AbstractMesh((2, 4, 1), sharding.AXES)
  array = lambda *shape: jax.ShapeDtypeStruct(shape, jnp.float32)
  tree = lambda n: {"kernel": array(n, 1024), "bias": array(4)}
  spec = lambda n: sharding.frozen_shardings(tree(n), mesh)["kernel"].spec
  assert spec(2**14) == jax.sharding.PartitionSpec()
  assert spec(2**15) == jax.sharding.PartitionSpec("fsdp", None)


@dataclasses.dataclass(frozen=True)
class Device:
  """What the order of a mesh depends on."""

  id: int
  slice_index: int
  coords: tuple[int, int, int]
  core_on_chip: int = 0
  process_index: int = 0
  platform: str = "tpu"
  device_kind: str = "TPU v5 lite"


def slices(count, side=4):
  place = [(x, y, 0) for y in range(side) for x in range(side)]
  return [Device(100 * s + i, s, at) for i, at in enumerate(place) for s in range(count)]  # as they come: mixed


def test_only_data_spans_slices(monkeypatch):
  monkeypatch.setattr(jax.sharding, "Mesh", lambda grid, axes, axis_types: SimpleNamespace(devices=grid, axes=axes))
  for shape in (Mesh(data=2, fsdp=16), Mesh(data=4, fsdp=8), Mesh(data=-1, fsdp=4, tensor=2)):
    grid = sharding.make_mesh(shape, slices(2)).devices
    index = np.vectorize(lambda d: d.slice_index)(grid)
    half = len(index) // 2
    assert (index[:half] == 0).all() and (index[half:] == 1).all()
  for wrong in (Mesh(data=1, fsdp=32), Mesh(data=3, fsdp=-1)):
    with pytest.raises(UserError, match="mesh"):
      sharding.make_mesh(wrong, slices(2))
  with pytest.raises(UserError, match="fsdp x tensor stays within a slice"):
    sharding.make_mesh(Mesh(data=-1, fsdp=16, tensor=2), slices(2))


def test_neighbours_in_the_mesh_are_neighbours_in_the_torus(monkeypatch):
  monkeypatch.setattr(jax.sharding, "Mesh", lambda grid, axes, axis_types: SimpleNamespace(devices=grid, axes=axes))
  grid = sharding.make_mesh(Mesh(data=4, fsdp=4), slices(1)).devices
  lines = [[d.coords for d in row] for row in grid[:, :, 0]]
  assert all(len({c[i] for c in line}) == 1 for i in (0, 1) for line in lines if line[0][i] == line[1][i])
  assert all(sum(a != b for a, b in zip(line[0], line[1], strict=True)) == 1 for line in lines)


def fake(state, shape):
  """A program of which only the state and the mesh are looked at."""
  mesh = SimpleNamespace(shape=dict(zip(sharding.AXES, shape, strict=True)), devices=np.zeros(math.prod(shape)))
  return SimpleNamespace(state=state, mesh=mesh)


def test_advice_is_the_arithmetic_of_the_layout():
  kernels = {f"k{i}": jax.ShapeDtypeStruct((1024, 4096), jnp.float32) for i in range(16)}  # 256 MiB
  one, found = micro.experiment(), plan.parse("v5e:4x4")
  program = fake(kernels, (16, 1, 1))
  mib = 2**20
  memory = {"parameters": 256 * mib, "optimiser": 0, "ema": 0, "other": 0, "temporaries": 100 * mib}
  memory |= {"peak": 356 * mib, "usable": 200 * mib}
  lines = advice.advise(one, 1, program, found, memory)
  assert len(lines) == 3 and "0.15 GiB too much" in lines[0]
  assert "--mesh.fsdp 2: state 0.25 -> 0.12 GiB (exact)" in lines[1] and "still" in lines[1]
  assert "--mesh.fsdp 4" in lines[2] and lines[2].endswith("fits")
  assert advice.state_bytes(program, 16) == 16 * mib

  memory |= {"temporaries": 400 * mib, "peak": 656 * mib}
  one = dataclasses.replace(one, stage1=dataclasses.replace(one.stage1, batch=128))
  lines = advice.advise(one, 1, program, found, memory)
  assert any("--stage1.batch 48: 8 -> 3 examples a device" in line for line in lines)  # 184 of 400 MiB, of 8
  assert any("on 3 times as many devices" in line for line in lines)
  assert any("--stage1.microbatches 4: 8 -> 2 examples a device at a time" in line for line in lines)
  assert not any("remat" in line for line in lines)
  memory |= {"hbm": 250 * mib}  # of which jax takes 200, and 225 if asked
  two = advice.advise(one, 2, fake(kernels, (8, 1, 1)), plan.parse("h100:1x1x8"), memory)
  assert "MEM_FRACTION=0.9: 0.22 GiB usable: still too much" in two[1]
  assert any("--stage2.prior.backbone.remat block" in line for line in two)
  assert any("one example a device at a time already" in line for line in two)


def test_fsdp_is_advised_within_an_island():
  assert advice.larger(fake({}, (32, 1, 1)), plan.parse("v5e:4x4", 2)) == [2, 4, 8, 16]
  assert advice.larger(fake({}, (16, 4, 1)), plan.parse("h100:1x8x8")) == [8]
  assert advice.larger(fake({}, (4, 1, 4)), plan.parse("v5e:4x4")) == [2, 4]


def refused(capsys, *argv):
  assert main.main(["plan", *map(str, argv)]) == 2
  said = capsys.readouterr().err.splitlines()
  assert len(said) == 1 and said[0].startswith("latents: error:")
  return said[0]


def test_bad_input_is_one_line(capsys, tmp_path, monkeypatch):
  monkeypatch.setattr(plan, "start", plan.parse)  # jax has started in this process
  file = tmp_path / "m.py"
  file.write_text(
    "import dataclasses\nfrom tests import micro\n"
    "def experiment(scale: str = 'tiny', prior: bool = True):\n  made = micro.experiment()\n"
    "  return made if prior else dataclasses.replace(made, stage2=None)\n"
  )
  one = (file, "--stage", 1, "--topology", "cpu:1")
  assert "did you mean v5e:4x4" in refused(capsys, file, "--stage", 1, "--topology", "v5r:4x4")
  assert "no stage 2" in refused(capsys, file, "--stage", 2, "--topology", "cpu:1", "--prior", "False")
  assert "does not fit 1 devices" in refused(capsys, *one, "--mesh.fsdp", 3)
  assert "did you mean --mesh.fsdp" in refused(capsys, *one, "--mesh.fsdb", 3)
  assert "batch is 0" in refused(capsys, *one, "--stage1.batch", 0)
  assert "--stage" in refused(capsys, file, "--topology", "cpu:1")
  assert "--topology" in refused(capsys, file, "--stage", 1)
  assert "no experiment file" in refused(capsys, tmp_path / "x.py", *one[1:])
