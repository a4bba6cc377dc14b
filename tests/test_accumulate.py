"""A batch in parts: the update of the whole where nothing is random; less memory. (Meshes: test_sharding.)"""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from latents.autoencoders import Autoencoder
from latents.backbones import DiT, Transformer
from latents.bottlenecks import NoBottleneck
from latents.declare import check
from latents.discriminators import PatchGAN
from latents.errors import UserError
from latents.losses import L2
from latents.priors import AutoregressivePrior
from latents.train import sharding
from latents.train.accumulate import accumulate
from latents.train.build_step import build_step
from latents.train.state import flatten
from tests import micro


def declared(codes=False, **changes):
  """Stages without random numbers: no posterior, no dropped labels, a GAN whose weight is constant."""
  made = micro.experiment(codes=codes)
  judge = PatchGAN(ch=8, layers=1, norm="group")  # batch norm takes its statistics from a part
  gan = dataclasses.replace(made.stage1.losses["gan"], discriminator=judge, adaptive=False, start=0, ramp=0, lead=0)
  one = dataclasses.replace(made.stage1, **changes)
  if not codes:
    old = made.stage1.model
    model = Autoencoder(encoder=old.encoder.clone(out=4), bottleneck=NoBottleneck(), decoder=old.decoder.clone())
    one = dataclasses.replace(one, model=model, losses={"l2": L2(), "gan": gan})
  backbone = Transformer(vocab=16, width=16, depth=1, heads=2, length=16)
  prior = AutoregressivePrior(backbone=backbone)
  two = dataclasses.replace(made.stage2, prior=prior, **changes)
  return dataclasses.replace(made, stage1=one, stage2=two)


def one_step(made, stage):
  mesh = micro.one_device()
  program = build_step(made, stage, mesh)
  rng = np.random.default_rng(0)
  batch = {"x": rng.integers(0, 256, (micro.BATCH, 16, 16, 1), dtype=np.uint8)}
  batch |= {"index": np.arange(micro.BATCH, dtype=np.int32), "label": np.zeros(micro.BATCH, np.int32)}
  values = jax.random.normal(jax.random.key(1), (1000,))
  frozen = jax.tree.map(lambda a: jnp.resize(values, a.shape).astype(a.dtype), program.frozen)
  frozen = sharding.place(frozen, mesh)
  state, logs = program.step(program.init(), frozen, sharding.place_batch(batch, micro.BATCH, mesh))
  return jax.device_get(state), jax.device_get(logs)


@pytest.mark.parametrize("stage", [pytest.param(1, marks=pytest.mark.slow), 2])
def test_parts_make_the_update_of_the_whole(stage):
  made = [declared(codes=stage == 2, microbatches=n) for n in (1, 4)]
  (whole, logs), (parts, found) = (one_step(m, stage) for m in made)
  assert logs.keys() == found.keys()
  for name in logs:
    assert found[name] == pytest.approx(logs[name], rel=1e-4, abs=1e-6), name
  # Adam's moments after one step are the gradients, scaled; the parameters themselves are close to their signs
  moments = [{k: v for k, v in flatten(state.opt).items() if "/mu/" in k} for state in (whole, parts)]
  assert len(moments[0]) > 10
  for name, wanted in moments[0].items():
    size = np.abs(wanted).max()
    np.testing.assert_allclose(moments[1][name], wanted, rtol=1e-3, atol=1e-3 * size + 1e-6, err_msg=name)
  assert max(np.abs(m).max() for m in moments[0].values()) > 1e-4


def test_variables_go_from_part_to_part_and_keys_differ():
  def fn(variables, part, key):
    return {"mean": part["x"].mean(), "noise": jax.random.normal(key)}, variables + part["x"].sum()

  batch, key = {"x": jnp.arange(8.0)}, jax.random.key(3)
  found, variables = accumulate(fn, jnp.float32(1), batch, 4, key)
  assert float(variables) == 29 and float(found["mean"]) == 3.5
  draws = [float(jax.random.normal(jax.random.fold_in(key, i))) for i in range(4)]
  assert float(found["noise"]) == pytest.approx(np.mean(draws))


@pytest.mark.slow
def test_a_codebook_is_updated_by_every_part():
  one, four = (one_step(micro.experiment(codes=True), 1)[0], one_step(declared(True, microbatches=4), 1)[0])
  counts = lambda state: state.extra["variables"]["codebook"]["bottleneck"]["counts"]
  tokens, g = micro.BATCH * 16, 0.99
  assert counts(one).sum() == pytest.approx(16 * g + (1 - g) * tokens, rel=1e-4)
  left = 16.0
  for _ in range(4):
    left = g * left + (1 - g) * tokens / 4
  assert counts(four).sum() == pytest.approx(left, rel=1e-4)


def test_a_part_takes_the_memory_of_a_part():
  made = micro.experiment(gan=False)
  prior = made.stage2.prior.clone(backbone=DiT(depth=1, width=64, heads=2, patch=1, classes=10))
  taken = {}
  for n in (1, 8):
    two = dataclasses.replace(made.stage2, prior=prior, batch=256, microbatches=n)
    program = build_step(dataclasses.replace(made, stage2=two), 2, micro.one_device())
    compiled = program.step.lower(program.state, program.frozen, program.batch).compile()
    taken[n] = compiled.memory_analysis().temp_size_in_bytes
  assert taken[8] < 0.25 * taken[1]


def test_what_does_not_divide_is_refused():
  made = micro.experiment()
  with pytest.raises(UserError, match=r"stage1\.batch is 8: it does not divide into 3 microbatches"):
    check(dataclasses.replace(made, stage1=dataclasses.replace(made.stage1, microbatches=3)))
  with pytest.raises(UserError, match="microbatches is 0"):
    check(dataclasses.replace(made, stage2=dataclasses.replace(made.stage2, microbatches=0)))
  with pytest.raises(UserError, match=r"does not divide over 4 devices .* in 4 microbatches"):
    sharding.check_batch(8, jax.sharding.AbstractMesh((4, 1, 1), sharding.AXES), 4)
