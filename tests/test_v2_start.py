"""Prototype tests of contracts v2: stages that begin with the weights of others, and what of them is trained."""

import dataclasses
import json

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import latents
from latents.bottlenecks import EMAVQ
from latents.declare import Start, addresses, dumps, loads, maker, to_json
from latents.errors import UserError
from latents.losses import L2, Adversarial, Weight
from latents.regularisers import NextToken
from latents.regularisers.next_token import NextVector
from latents.runs import run
from latents.train import partition, stage1
from latents.train.build_step import build_step
from latents.train.checkpoint import Checkpoints
from latents.train.sharding import place_batch
from latents.train.state import flatten
from tests import micro
from tests.test_train_steps import data


def finetuned(base, **changes):
  """The decoder of `base` trained on, against a discriminator, on what its encoder gives."""
  gan = Adversarial(discriminator=micro.PatchGAN(ch=8, layers=1), weight=0.1)
  losses = {"l2": L2(), "kl": Weight(0.0), "gan": gan}
  one = dataclasses.replace(
    base.stage1,
    **{"losses": losses, "start": (Start(stage=base.stage1),), "trained": ("decoder",), "steps": 3, **changes},
  )
  return dataclasses.replace(base, name="finetuned", stage1=one)


# -- addresses


def test_old_declarations_keep_their_addresses_and_their_text():
  made = micro.experiment(gan=False)
  assert "start" not in to_json(made.stage1) and "trained" not in to_json(made.stage1)
  assert loads(dumps(made), "x").stage1.trained == ("",)
  golden = {"digits": ("4e0b34d1cf", "05c2c22c9d"), "titok": None}
  from experiments.images import digits

  assert addresses(digits.experiment("tiny")) == golden["digits"]


def test_a_new_decoder_has_its_own_address_and_shares_the_prior():
  base = micro.experiment(gan=False)
  fine = finetuned(base)
  assert loads(dumps(fine), "x") == fine and addresses(loads(dumps(fine), "x")) == addresses(fine)
  (one, two), (other, prior) = addresses(base), addresses(fine)
  assert one != other and two == prior
  assert maker(fine.stage1) == base.stage1
  twice = finetuned(fine, trained=("decoder/conv_out",))  # and again
  assert addresses(twice)[1] == two and addresses(twice)[0] not in (one, other)
  for changed in ({"trained": ("",)}, {"trained": ("encoder/conv_out", "decoder")}, {"trained": ("bottleneck",)}):
    assert addresses(finetuned(base, **changed))[1] != two
  reseeded = dataclasses.replace(fine, seed=1)
  assert addresses(reseeded)[1] == addresses(dataclasses.replace(base, seed=1))[1] != two
  longer = dataclasses.replace(base, stage1=dataclasses.replace(base.stage1, steps=7))
  assert addresses(finetuned(longer))[0] != other  # what it begins with is part of what it is


# -- what is trained


def test_untrained_parts_are_no_part_of_the_state():
  base = micro.experiment(codes=True, gan=False)
  one = dataclasses.replace(base.stage1, start=(Start(stage=base.stage1),), trained=("decoder",))
  program = build_step(dataclasses.replace(base, stage1=one), 1, micro.one_device())
  names = {n for n in flatten(program.state) if "encoder" in n or "bottleneck" in n}
  assert not names
  fixed = flatten(program.frozen["fixed"])
  assert any(n.startswith("codebook/bottleneck") for n in fixed) and any(n.startswith("params/encoder") for n in fixed)
  assert not any("decoder" in n for n in fixed)


def test_paths_that_name_nothing_are_said():
  base = micro.experiment(gan=False)
  with pytest.raises(UserError, match=r"no part 'decodr'.*decoder"):
    build_step(finetuned(base, trained=("decodr",)), 1, micro.one_device())
  with pytest.raises(UserError, match="no part 'teacher'"):
    partition.place({"params": {"decoder": {"w": 1}}}, "teacher", "")


def test_parts_are_put_where_they_are_wanted():
  tree = {"params": {"decoder": {"a": {"w": 1}}, "encoder": {"w": 2}}, "codebook": {"bottleneck": {"e": 3}}}
  assert partition.place(tree, "", "inner") == {
    "params": {"inner": tree["params"]}, "codebook": {"inner": tree["codebook"]}
  }  # fmt: skip
  assert partition.place(tree, "decoder/a", "teacher") == {"params": {"teacher": {"w": 1}}}
  moving, fixed = partition.split(tree, ("decoder",))
  assert moving == {"params": {"decoder": {"a": {"w": 1}}}} and partition.merge(fixed, moving) == tree
  with pytest.raises(UserError, match="no part 'deco'"):
    partition.split(tree, ("deco",))  # whole names only


# -- everything at once, in numbers: groups of losses, part of the model, checkpoints


def test_resume_is_bitwise_with_all_groups(tmp_path):
  base = micro.experiment(codes=True)
  prior = NextToken(weight=0.1, against="codes", network=NextVector(8, 1, 2, 8))
  losses = {**base.stage1.losses, "next": prior}
  one = dataclasses.replace(
    base.stage1, losses=losses, trained=("bottleneck", "decoder"), start=(Start(stage=base.stage1),)
  )
  made = dataclasses.replace(base, stage1=one)
  program = build_step(made, 1, micro.one_device())
  whole = jax.device_get(build_step(base, 1, micro.one_device()).init().ema)
  frozen = {"losses": {}, "fixed": partition.select(whole, one.trained, below=False)}
  batches = [place_batch(b, micro.BATCH, program.mesh) for b in data(made, made.stage1, 4)]
  state = program.init(whole)
  for name, a in flatten(partition.select(whole, one.trained)).items():
    np.testing.assert_array_equal(a, flatten(state.ema)[name], err_msg=name)  # it begins with what was given
  state, _ = program.step(state, frozen, batches[0])
  state, _ = program.step(state, frozen, batches[1])
  store = Checkpoints(tmp_path / "c")
  store.save(2, state)
  store.finish()
  for b in batches[2:]:
    state, logs = program.step(state, frozen, b)
  again = store.restore(program.state)
  store.close()
  for b in batches[2:]:
    again, _ = program.step(again, frozen, b)
  a, b = flatten(jax.device_get(state)), flatten(jax.device_get(again))
  assert a.keys() == b.keys() and all(np.array_equal(a[k], b[k]) for k in a)
  assert {"grad_ae", "grad_disc", "grad_next"} <= set(logs)
  assert {n.split("/")[1] for n in a if n.startswith("params/")} == {"ae", "disc", "next"}
  assert not any("encoder" in n for n in a)


# -- a whole run


def test_a_decoder_is_trained_on_with_the_same_latents_and_the_same_prior(tmp_path, capfd):
  base = micro.experiment(gan=False)
  base = dataclasses.replace(
    base,
    name="base",
    stage1=dataclasses.replace(base.stage1, steps=3),
    stage2=dataclasses.replace(base.stage2, steps=2),
  )
  fine = finetuned(base)
  folder = run.run(fine, tmp_path, None, "test")
  said = capfd.readouterr().err
  assert said.count("stage 1, autoencoder") == 2 and said.count("stage 2, prior") == 1
  nested, own = (folder / f"stage1-{addresses(e)[0]}" for e in (base, fine))
  assert (nested / "weights.safetensors").exists() and (own / "weights.safetensors").exists()
  assert (nested / "metrics.jsonl").exists()
  lines = [json.loads(t) for t in (folder / "metrics.jsonl").read_text().splitlines()]
  assert [(li["stage"], li["step"]) for li in lines] == [(1, 1), (1, 2), (1, 3), (2, 1), (2, 2)]
  first, second = (
    (latents.artefact.read(p) for p in (nested, own)) if hasattr(latents, "artefact") else _read(nested, own)
  )
  for name, a in first.weights.items():
    same = np.array_equal(a, second.weights[name])
    assert same == (not name.startswith("params/decoder")), name
  assert first.facts["statistics"] == second.facts["statistics"] and first.latents == second.latents
  assert first.fingerprint != second.fingerprint

  plain = run.run(base, tmp_path, None, "test")
  said = capfd.readouterr().err
  assert "stage 1 is the same as" in said and "stage 2 is the same as" in said and "parameters" not in said
  x = np.random.default_rng(0).uniform(-1, 1, (3, 16, 16, 1)).astype(np.float32)
  a, b = latents.load(plain), latents.load(folder)
  np.testing.assert_array_equal(a.encode(x).z, b.encode(x).z)
  assert not np.array_equal(a.reconstruct(x), b.reconstruct(x))
  drawn = [m.sampler.latents(np.zeros(2, np.int32), 0, None) for m in (a, b)]
  np.testing.assert_array_equal(*(next(d)[0].z for d in drawn))  # one prior, two decoders
  run.run(fine, tmp_path, None, "test")
  assert "nothing to do" in capfd.readouterr().err


def _read(*places):
  from latents.store import artefact

  return [artefact.read(p) for p in places]


def test_flags_reach_what_a_stage_begins_with():
  from latents.command import overrides

  fine = finetuned(micro.experiment(gan=False))
  known = list(overrides.scalars(fine))
  assert "stage1.start.0.stage.steps" in known
  changed = overrides.override(fine, ["--stage1.start.0.stage.steps", "9", "--stage1.steps", "5"])
  assert changed.stage1.start[0].stage.steps == 9 and changed.stage1.steps == 5
  plain = micro.experiment(gan=False)
  assert overrides.override(plain, ["--stage1.steps", "5"]).stage1.start == ()


def test_the_frozen_codebook_does_not_move():
  base = micro.experiment(codes=True, gan=False)
  one = dataclasses.replace(base.stage1, trained=("decoder",), start=(Start(stage=base.stage1),))
  program = build_step(dataclasses.replace(base, stage1=one), 1, micro.one_device())
  whole = jax.device_get(build_step(base, 1, micro.one_device()).init().ema)
  frozen = {"losses": {}, "fixed": partition.select(whole, one.trained, below=False)}
  batch = place_batch(data(base, one, 1)[0], micro.BATCH, program.mesh)
  state, logs = program.step(program.init(whole), frozen, batch)
  assert "codebook" not in state.extra["variables"] and "codebook" not in state.ema
  assert float(logs["usage"]) > 0 and isinstance(base.stage1.model.bottleneck, EMAVQ) and jnp is not None and stage1


def test_whose_latents_they_are():
  base = micro.experiment(gan=False)
  whole = Start(stage=base.stage1)
  encoder, bottleneck = (Start(stage=base.stage1, source=p, into=p) for p in ("encoder", "bottleneck"))
  make = lambda *start, trained=("decoder",): dataclasses.replace(base.stage1, start=start, trained=trained)
  assert maker(make(whole)) == base.stage1 and maker(make(encoder, bottleneck)) == base.stage1
  other = dataclasses.replace(base.stage1, steps=9)
  for mine in (
    make(),
    make(encoder),  # whose bottleneck?
    make(Start(stage=base.stage1, source="encoder", into="bottleneck"), whole),
    make(whole, Start(stage=other, source="encoder", into="encoder")),
    make(whole, trained=("decoder", "bottleneck")),
    make(whole, trained=("",)),
  ):
    assert maker(mine) is mine


def test_a_prior_is_shared_by_the_decoder_that_comes_later(tmp_path, capfd):
  base = micro.experiment(gan=False)
  short = {"stage1": dataclasses.replace(base.stage1, steps=2), "stage2": dataclasses.replace(base.stage2, steps=2)}
  base = dataclasses.replace(base, name="base", **short)
  run.run(base, tmp_path, None, "test")
  capfd.readouterr()
  run.run(finetuned(base), tmp_path, None, "test")
  said = capfd.readouterr().err
  assert said.count("stage 1, autoencoder") == 1  # the decoder's own training; the base is copied
  assert "stage 1 is the same as" in said and "stage 2 is the same as" in said and "stage 2, prior" not in said
