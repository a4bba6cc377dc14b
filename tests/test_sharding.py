"""One device and eight give the same training, however parameters and batch are laid out; the table itself."""

import dataclasses
import json
import math
import os
import subprocess
import sys
from pathlib import Path

import jax
import numpy as np
import pytest
from jax.sharding import AxisType, NamedSharding, PartitionSpec

from latents.backbones import DiT, Transformer, UNet
from latents.declare import Experiment, Mesh, Start
from latents.discriminators import PatchGAN, SpectralNorm, StyleGAN
from latents.errors import UserError
from latents.losses import Adversarial
from latents.regularisers import NextToken
from latents.regularisers.next_token import NextVector
from latents.train import sharding
from latents.train.state import flatten
from tests import micro

ROOT = Path(__file__).parent.parent
MESHES = {"one": (1, 1, 1), "data": (8, 1, 1), "fsdp": (2, 4, 1), "tensor": (2, 2, 2), "four": (2, 2, 1)}


def together(made: Experiment) -> Experiment:
  """A rival, a network of a loss beside it, and a decoder that is trained on what an untouched encoder gives."""
  prior = NextToken(weight=0.1, network=NextVector(8, 1, 2, 8))
  one = dataclasses.replace(
    made.stage1,
    losses={**made.stage1.losses, "next": prior},
    start=(Start(stage=made.stage1),),
    trained=("decoder", "bottleneck"),
  )
  return dataclasses.replace(made, stage1=one)


def judges(made: Experiment) -> Experiment:
  """StyleGAN2's discriminator, whose groups of examples lie on two devices, with its penalties, and a judge with
  spectral norm beside it."""
  style = Adversarial(
    discriminator=StyleGAN(base=128, most=16), adaptive=False, objective="nonsaturating", r1=1.0, r1_every=2, lecam=0.1
  )
  other = Adversarial(discriminator=SpectralNorm(PatchGAN(ch=8, layers=1, norm="none")), adaptive=False)
  return dataclasses.replace(
    made, stage1=dataclasses.replace(made.stage1, losses={**made.stage1.losses, "gan": style, "gan2": other})
  )


MADE = {
  "micro": micro.experiment,
  "codes": lambda: micro.experiment(codes=True),
  "together": lambda: together(micro.experiment()),
  "judges": lambda: judges(micro.experiment()),
}


def losses(stage: int, name: str, microbatches: int, shape: tuple[int, int, int]) -> list[dict[str, float]]:
  """Five steps of one of `MADE` on a mesh of the first devices; in a process that has eight. With FLOPs a device."""
  from latents.data import batches
  from latents.train.build_step import build_step

  sharding.SMALL = 0  # the smallest networks would be copied whole
  made = MADE[name]()
  mesh = sharding.make_mesh(Mesh(*shape), jax.devices()[: math.prod(shape)])
  changes = {"batch": micro.BATCH * microbatches, "microbatches": microbatches}
  made = dataclasses.replace(
    made, stage1=dataclasses.replace(made.stage1, **changes), stage2=dataclasses.replace(made.stage2, **changes)
  )
  declared = made.stage1 if stage == 1 else made.stage2
  program = build_step(made, stage, mesh)
  frozen = {"losses": {}, "fixed": sharding.place(jax.device_get(program.fixed()), mesh)}
  if stage == 2:
    one = build_step(made, 1, sharding.make_mesh(Mesh(), jax.devices()[:1])).init()
    channels = program.frozen["mean"].shape
    arrays = {"variables": jax.device_get(one.ema), "mean": np.zeros(channels), "std": np.ones(channels)}
    frozen = sharding.place(jax.tree.map(lambda a: np.asarray(a), arrays), mesh)
  state, found = program.init(), []
  sharded = [a for a in jax.tree.leaves(state.params) if not a.sharding.is_fully_replicated]
  assert bool(sharded) == (shape[1] > 1 or shape[2] > 1)
  with batches(declared.data, split="train", batch=declared.batch, seed=0) as stream:
    for _ in range(5):
      state, logs = program.step(state, frozen, sharding.place_batch(next(stream), declared.batch, mesh))
      found.append({k: float(v) for k, v in logs.items()})
  # without fusion, which computes cheap terms once for each reader: its repetitions differ by mesh and are no device's
  options = {"xla_disable_hlo_passes": "fusion", "xla_backend_optimization_level": 0}
  compiled = program.step.lower(program.state, program.frozen, program.batch).compile(compiler_options=options)
  return [{**line, "flops": compiled.cost_analysis()["flops"]} for line in found]


@pytest.mark.parametrize(
  ("stage", "made", "parts", "names"),
  [
    (1, "micro", 1, ("fsdp",)),
    (2, "micro", 1, ("tensor",)),
    pytest.param(1, "together", 1, ("four",), marks=pytest.mark.slow),
    pytest.param(1, "judges", 1, ("four",), marks=pytest.mark.slow),
    pytest.param(1, "micro", 1, ("data",), marks=pytest.mark.slow),
    pytest.param(1, "codes", 2, ("fsdp",), marks=pytest.mark.slow),
  ],
)
def test_one_device_equals_eight(stage, made, parts, names):
  script = (
    "import json, sys\nfrom tests import test_sharding as t\n"
    f"print(json.dumps({{k: t.losses({stage}, {made!r}, {parts}, t.MESHES[k]) for k in {(*names, 'one')}}}))"
  )
  flags = f"{os.environ.get('XLA_FLAGS', '')} --xla_force_host_platform_device_count=8"
  env = {**os.environ, "XLA_FLAGS": flags, "PYTHONPATH": str(ROOT)}
  done = subprocess.run([sys.executable, "-c", script], env=env, cwd=ROOT, capture_output=True, text=True, timeout=900)
  assert done.returncode == 0, done.stderr[-3000:]
  found = json.loads(done.stdout.splitlines()[-1])
  for name in names:
    for step, (line, other) in enumerate(zip(found["one"], found[name], strict=True)):
      one = dict(line)
      assert set(one) == set(other)
      share = other.pop("flops") / one.pop("flops")  # no device repeats what another does, but for its parameters'
      assert share < 1.05 / math.prod(MESHES[name][:2]), f"{name}: a device computes {share:.3f} of all"
      for key, value in one.items():
        # the ratio of two small gradients is the least stable number
        close = pytest.approx(value, rel=5e-3 if key.startswith("gan") else 5e-4, abs=2e-5)
        assert other[key] == close, f"{name}, step {step}, {key}: {other[key]} != {value}"


@pytest.mark.parametrize("shape", [(8, 1, 1), (1, 8, 1), (2, 4, 1), (2, 2, 2)])
def test_a_batch_is_split_over_data_and_fsdp(shape):
  mesh = jax.sharding.AbstractMesh(shape, sharding.AXES)
  rows = NamedSharding(mesh, sharding.BATCH).shard_shape((48, 4, 4, 1))
  assert rows == (48 // (shape[0] * shape[1]), 4, 4, 1)


@pytest.mark.parametrize(
  ("path", "shape", "mesh", "spec"),
  [
    ("params/ae/conv/kernel", (3, 3, 128, 256), (1, 1, 1), (None, None, None, None)),
    ("params/ae/conv/kernel", (3, 3, 128, 256), (1, 4, 1), (None, None, None, "fsdp")),
    ("opt/ae/0/mu/conv/kernel", (3, 3, 128, 256), (1, 4, 1), (None, None, None, "fsdp")),
    ("params/prior/blocks_0/mlp/fc1/kernel", (384, 1536), (1, 2, 2), ("fsdp", "tensor")),
    ("params/prior/blocks_0/mlp/fc2/kernel", (1536, 384), (1, 2, 2), ("tensor", "fsdp")),
    ("params/prior/bias", (1536,), (1, 2, 1), ("fsdp",)),
    ("params/prior/bias", (512,), (1, 2, 1), (None,)),
    ("params/odd/kernel", (127, 131), (1, 4, 1), (None, None)),
  ],
)
def test_the_table(path, shape, mesh, spec):
  fake = jax.sharding.AbstractMesh(mesh, sharding.AXES)
  assert sharding.spec_of(path, shape, fake) == PartitionSpec(*spec)


def test_meshes_that_do_not_fit():
  devices = jax.devices()[:1]
  for wrong in (Mesh(data=2), Mesh(fsdp=3), Mesh(data=-1, fsdp=-1), Mesh(data=0), Mesh(tensor=-2)):
    with pytest.raises(UserError, match="mesh"):
      sharding.make_mesh(wrong, devices)


@pytest.mark.parametrize(
  ("net", "shape", "least"),
  [
    (DiT(depth=3, width=16, heads=2, classes=4), (8, 4, 4, 2), 2 + 3 * 2 + 1),  # tokens, condition; a block's two; last
    (UNet(ch=8, mult=(1, 2), blocks=1, classes=4), (8, 4, 4, 2), 2 + 8 * 2),  # input, condition; a block's two
    (Transformer(vocab=8, width=16, depth=3, heads=2, length=4, classes=4), (8, 4), 2 + 3),
  ],
)
def test_per_sample_tensors_keep_their_layout(net, shape, least):
  """Forward passes hold a constraint for every tensor that belongs to a sample: DiT's adaLN, U-Net's time."""
  tokens = isinstance(net, Transformer)
  x = jax.ShapeDtypeStruct(shape, np.int32 if tokens else np.float32)
  each = {"label": jax.ShapeDtypeStruct(shape[:1], np.int32)}
  args = (x, each) if tokens else (x, jax.ShapeDtypeStruct(shape[:1], np.float32), each)
  params = jax.eval_shape(net.init, jax.random.key(0), *args)
  mesh = jax.sharding.AbstractMesh((2, 4, 1), sharding.AXES, axis_types=(AxisType.Auto,) * 3)
  with jax.sharding.use_abstract_mesh(mesh):
    text = str(jax.make_jaxpr(net.apply)(params, *args))
  convolutions = sum(a.ndim == 4 for a in jax.tree.leaves(params))  # each holds its own
  assert text.count("sharding_constraint") == least + convolutions
  assert "sharding_constraint" not in str(jax.make_jaxpr(net.apply)(params, *args))


def test_judges_keep_per_sample_tensors_where_they_lie():
  """A constraint for every convolution and dense layer of StyleGAN2's discriminator, at every width of the batch."""
  net, x = StyleGAN(base=64, most=8), jax.ShapeDtypeStruct((8, 16, 16, 3), np.float32)
  params = jax.eval_shape(lambda x: net.init(jax.random.key(0), x, train=True), x)
  mesh = jax.sharding.AbstractMesh((2, 4, 1), sharding.AXES, axis_types=(AxisType.Auto,) * 3)
  with jax.sharding.use_abstract_mesh(mesh):
    text = str(jax.make_jaxpr(lambda p, x: net.apply(p, x, train=True))(params, x))
  assert text.count("sharding_constraint") == sum(name.endswith("kernel") for name in flatten(params))
