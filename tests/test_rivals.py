"""Several judges in one stage: each changes by its own objective, and parts of a batch make the update of the whole."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from latents.autoencoders import Autoencoder
from latents.bottlenecks import NoBottleneck
from latents.command import overrides
from latents.declare import addresses, dumps, loads
from latents.decoders import ConvDecoder
from latents.discriminators import FeatureHeads, PatchGAN, SpectralNorm, StyleGAN
from latents.encoders import ConvEncoder
from latents.errors import UserError
from latents.losses import L2, Adversarial, Balancer, GradientNorm, PairAdversarial
from latents.optim import Adam, PowerAverage
from latents.train import objective
from latents.train.checkpoint import Checkpoints
from latents.train.state import flatten
from tests import micro

BATCH = 4


def stage(microbatches=1, **changes):
  judge = Adversarial(
    discriminator=PatchGAN(ch=4, layers=1, norm="none"), adaptive=False, features=1.0, optimizer=Adam(lr=1e-3)
  )
  made = micro.experiment(gan=False).stage1
  model = Autoencoder(
    encoder=ConvEncoder(ch=4, mult=(1,), blocks=1, out=2, mid_attention=False),
    bottleneck=NoBottleneck(),
    decoder=ConvDecoder(ch=4, mult=(1,), blocks=1, channels=1, mid_attention=False),
  )
  late = dataclasses.replace(judge, objective="lsgan", lecam=0.1 if "lecam" in changes else 0.0, start=2)
  changes.pop("lecam", None)
  losses = {"l2": L2(), "gan": judge, "other": dataclasses.replace(late, start=changes.pop("start", 0))}
  return dataclasses.replace(
    made, data=dataclasses.replace(made.data, size=8), model=model, losses=losses, batch=BATCH,
    microbatches=microbatches, **changes,
  )  # fmt: skip


def batch():
  x = np.random.default_rng(0).uniform(-1, 1, (BATCH, 8, 8, 1)).astype(np.float32)
  return {"x": jnp.asarray(x), "index": jnp.arange(BATCH)}


FROZEN = {"losses": {}, "fixed": {}}


def stepper(one):
  return jax.jit(lambda s, b: micro.update(one, s, FROZEN, b))


def first(one):
  return jax.jit(lambda b: micro.first_state(one, FROZEN, b))(batch())


def test_two_rivals_in_parts_make_the_update_of_the_whole():
  state = first(stage())
  assert set(state.params) == {"ae", "disc", "other"}
  (whole, logs), (parts, found) = (stepper(stage(n))(state, batch()) for n in (1, 2))
  assert {"disc", "other_disc", "features", "other_features", "grad_disc", "grad_other"} <= set(logs)
  for name in logs:
    assert float(found[name]) == pytest.approx(float(logs[name]), rel=1e-4, abs=1e-6), name
  moments = [{k: v for k, v in flatten(s.opt).items() if "/mu/" in k} for s in (whole, parts)]
  for name, wanted in moments[0].items():
    np.testing.assert_allclose(
      moments[1][name], wanted, rtol=1e-3, atol=1e-3 * np.abs(wanted).max() + 1e-7, err_msg=name
    )


def test_each_network_changes_by_its_own_objective_only():
  """Without the losses of the others, a judge's gradient is the same to the last digits; without its own, none."""
  one = stage()
  state = first(one)
  after = {"both": stepper(one)(state, batch())[0]}
  for name, group in (("gan", "disc"), ("other", "other")):
    quiet = {**one.losses, name: dataclasses.replace(one.losses[name], start=100)}
    after[group] = stepper(dataclasses.replace(one, losses=quiet))(state, batch())[0]
  still = {**one.losses, "l2": L2(weight=0.0)} | {
    n: dataclasses.replace(one.losses[n], weight=0.0) for n in ("gan", "other")
  }
  after["ae"] = stepper(dataclasses.replace(one, losses=still))(state, batch())[0]
  same = lambda a, b, group: all(
    np.allclose(x, y, rtol=1e-4, atol=1e-6)
    for x, y in zip(jax.tree.leaves(a.params[group]), jax.tree.leaves(b.params[group]), strict=True)
  )
  for stopped in ("ae", "disc", "other"):
    for group in ("ae", "disc", "other"):
      if group == stopped:
        assert same(after[stopped], state, group), (stopped, group)
      elif group != "ae":  # the model feels what the judges say: it may change
        assert same(after[stopped], after["both"], group), (stopped, group)
  assert not any(same(after["both"], state, group) for group in ("ae", "disc", "other"))


def test_a_judge_that_waits_keeps_its_state_and_counts_its_own_updates():
  one = stage(lecam=True, start=1, averages={"power": PowerAverage(gamma=1.0)}, balancer=Balancer())
  state, step = first(one), None
  step = stepper(one)
  shares, counts = [], []
  for _ in range(3):
    state, logs = step(state, batch())
    shares.append(float(state.extra["losses"]["other"]["lecam"]["share"]))
    counts.append(int(max(v for k, v in flatten(state.opt["other"]).items() if k.endswith("count"))))
  assert shares[0] == 0 and 0 < shares[1] < shares[2]
  assert counts == [0, 1, 2]
  assert set(state.extra["losses"]["balancer"]) == {"l2", "gan", "other"}
  assert float(state.extra["losses"]["balancer"]["other"]["share"]) == pytest.approx(1 + 0.999, rel=1e-5)
  assert float(logs["l2_balance"]) > 0
  assert flatten(state.averages["power"]).keys() == flatten(state.ema).keys()
  bad = {**batch(), "x": jnp.full_like(batch()["x"], jnp.nan)}
  after, _ = step(state, bad)
  for a, b in zip(jax.tree.leaves(after.extra["losses"]), jax.tree.leaves(state.extra["losses"]), strict=True):
    np.testing.assert_array_equal(a, b)
  for a, b in zip(jax.tree.leaves(after.averages), jax.tree.leaves(state.averages), strict=True):
    np.testing.assert_array_equal(a, b)


def judged(by, kind=Adversarial, **options):
  """A stage whose one judge is `by`."""
  one = stage()
  loss = kind(discriminator=by, adaptive=False, optimizer=Adam(lr=1e-3), **options)
  return dataclasses.replace(one, losses={"l2": L2(), "gan": loss})


JUDGES = {
  "stylegan": lambda: judged(StyleGAN(base=64, most=8), objective="nonsaturating", r1=1.0, r1_every=1),
  "spectral": lambda: judged(SpectralNorm(PatchGAN(ch=4, layers=1, norm="none"))),
  "pair": lambda: judged(PatchGAN(ch=4, layers=1, norm="group"), PairAdversarial, objective="nonsaturating"),
  "features": lambda: judged(SpectralNorm(FeatureHeads((0, 1), ch=4, width=4, side=16))),
}


@pytest.mark.parametrize("name", JUDGES)
def test_every_kind_of_judge_learns_beside_a_model(name, tmp_path):
  one = JUDGES[name]()
  frozen = {"losses": objective.load_frozen(one.losses), "fixed": {}}
  assert ("gan" in frozen["losses"]) == (name == "features")
  shapes = jax.tree.map(jnp.shape, objective.abstract_frozen(one.losses))
  assert shapes == jax.tree.map(jnp.shape, frozen["losses"])
  state = jax.jit(lambda b, f: micro.first_state(one, f, b))(batch(), frozen)
  after, logs = jax.jit(lambda s, f, b: micro.update(one, s, f, b))(state, frozen, batch())
  for group in ("ae", "disc"):
    moved = [
      np.abs(a - b).max()
      for a, b in zip(*map(jax.tree.leaves, (state.params[group], after.params[group])), strict=True)
    ]
    assert max(moved) > 0, group
  assert np.isfinite([float(v) for v in logs.values()]).all() and float(logs["grad_disc"]) > 0
  held = state.extra["losses"]
  if name in ("spectral", "features"):  # the vectors go on with the judge's learning
    before, now = (s.extra["losses"]["gan"]["spectral"]["vectors"] for s in (state, after))
    assert before.keys() == now.keys() and all(
      np.abs(before[k] - now[k]).max() > 0 for k in before if before[k].size > 1
    )
    assert not any(k.startswith("block") for k in state.params["disc"]["judge"])  # the frozen network is in no state
  else:
    assert held == {}
  # and what is saved comes back
  where = jax.sharding.SingleDeviceSharding(jax.devices()[0])
  saved = Checkpoints(tmp_path / "checkpoints")
  saved.save(1, after)
  saved.close()
  saved = Checkpoints(tmp_path / "checkpoints")
  found = saved.restore(jax.tree.map(lambda a: jax.ShapeDtypeStruct(a.shape, a.dtype, sharding=where), after))
  saved.close()
  assert jax.tree.structure(found) == jax.tree.structure(after)
  for a, b in zip(jax.tree.leaves(found), jax.tree.leaves(after), strict=True):
    np.testing.assert_array_equal(a, b)


@pytest.mark.parametrize("name", JUDGES)
def test_every_kind_of_judge_is_declared_stored_and_set_by_flags(name):
  one = dataclasses.replace(JUDGES[name](), balancer=GradientNorm(("gan",)))
  made = dataclasses.replace(micro.experiment(gan=False), stage1=one, stage2=None)
  again = loads(dumps(made), "memory")
  assert again == made and addresses(again) == addresses(made)
  inner = "discriminator.inner" if isinstance(one.losses["gan"].discriminator, SpectralNorm) else "discriminator"
  width = "width" if name == "features" else "base" if name == "stylegan" else "ch"
  changed = overrides.override(made, [f"--stage1.losses.gan.{inner}.{width}", "16"])
  assert addresses(changed) != addresses(made)


def test_gradients_of_length_one_in_a_step():
  one = dataclasses.replace(stage(), balancer=GradientNorm(("gan", "other")))
  state = first(one)
  after, logs = stepper(one)(state, batch())
  assert float(logs["l2_balance"]) == 1.0 and float(logs["gan_balance"]) > 0
  assert state.extra["losses"]["balancer"] == after.extra["losses"]["balancer"] == {}
  wrong = dataclasses.replace(one, balancer=GradientNorm(("gann",)))
  with pytest.raises(UserError, match="'gann'"):
    jax.eval_shape(lambda s, b: micro.update(wrong, s, FROZEN, b), state, batch())
