"""Stages that begin with the weights of others, and what of them is trained."""

import dataclasses
import hashlib
import json
import shutil

import jax
import numpy as np
import pytest

import latents
from latents.autoencoders import Autoencoder, Stacked
from latents.bottlenecks import KL
from latents.declare import (
  Released,
  Start,
  addresses,
  check,
  dumps,
  loads,
  maker,
  prolonged,
  to_json,
)
from latents.decoders import ConvDecoder
from latents.encoders import ConvEncoder
from latents.errors import UserError
from latents.losses import L2, Adversarial, Weight
from latents.regularisers import NextToken
from latents.regularisers.next_token import NextVector
from latents.runs import run
from latents.store import artefact, stages
from latents.store.folder import Folder
from latents.train import partition
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
  with pytest.raises(UserError, match=r"stage1\.start\.0\.source: that stage has no part 'teacher'"):
    partition.place({"params": {"decoder": {"w": 1}}}, "teacher", "", "stage1.start.0")


def test_parts_are_put_where_they_are_wanted():
  tree = {"params": {"decoder": {"a": {"w": 1}}, "encoder": {"w": 2}}, "codebook": {"bottleneck": {"e": 3}}}
  assert partition.place(tree, "", "inner", "") == {
    "params": {"inner": tree["params"]}, "codebook": {"inner": tree["codebook"]}
  }  # fmt: skip
  assert partition.place(tree, "decoder/a", "teacher", "") == {"params": {"teacher": {"w": 1}}}
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
  state = program.init({"model": whole, "losses": {}})
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
  assert said.count("stage 1, autoencoder") == said.count("stage1.start.0.stage, autoencoder") == 1
  assert said.count("stage 2, prior") == 1
  assert f"stage 1 begins its model with the weights of stage1-{addresses(base)[0]} (3 steps, averaged)" in said
  nested, own = (folder / f"stage1-{addresses(e)[0]}" for e in (base, fine))
  assert (nested / "weights.safetensors").exists() and (own / "weights.safetensors").exists()
  assert (nested / "metrics.jsonl").exists()
  lines = [json.loads(t) for t in (folder / "metrics.jsonl").read_text().splitlines()]
  assert [(li["stage"], li["step"]) for li in lines] == [(1, 1), (1, 2), (1, 3), (2, 1), (2, 2)]
  first, second = (artefact.read(p) for p in (nested, own))
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


def test_flags_reach_what_a_stage_begins_with():
  from latents.command import overrides

  fine = finetuned(micro.experiment(gan=False))
  known = list(overrides.scalars(fine))
  assert "stage1.start.0.stage.steps" in known
  changed = overrides.override(fine, ["--stage1.start.0.stage.steps", "9", "--stage1.steps", "5"])
  assert changed.stage1.start[0].stage.steps == 9 and changed.stage1.steps == 5
  twice = dataclasses.replace(fine, stage1=dataclasses.replace(fine.stage1, start=(Start(stage=fine.stage1),)))
  deep = "stage1.start.0.stage.start.0.stage.steps"
  changed = overrides.override(twice, [f"--{deep}", "9", "--stage2.steps", "4"])
  kept = changed.stage1.start[0].stage
  assert (kept.start[0].stage.steps, kept.steps) == (9, fine.stage1.steps) and kept.model == fine.stage1.model
  assert overrides.override(twice, ["--stage2.steps", "4"]).stage1 == twice.stage1
  plain = micro.experiment(gan=False)
  assert overrides.override(plain, ["--stage1.steps", "5"]).stage1.start == ()


def test_the_frozen_codebook_does_not_move():
  base = micro.experiment(codes=True, gan=False)
  one = dataclasses.replace(base.stage1, trained=("decoder",), start=(Start(stage=base.stage1),))
  program = build_step(dataclasses.replace(base, stage1=one), 1, micro.one_device())
  whole = jax.device_get(build_step(base, 1, micro.one_device()).init().ema)
  frozen = {"losses": {}, "fixed": partition.select(whole, one.trained, below=False)}
  batch = place_batch(data(base, one, 1)[0], micro.BATCH, program.mesh)
  state, logs = program.step(program.init({"model": whole, "losses": {}}), frozen, batch)
  assert "codebook" not in state.extra["variables"] and "codebook" not in state.ema
  assert float(logs["usage"]) > 0


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


@pytest.mark.slow
def test_a_prior_is_shared_by_the_decoder_that_comes_later(tmp_path, capfd):
  base = micro.experiment(gan=False)
  short = {"stage1": dataclasses.replace(base.stage1, steps=2), "stage2": dataclasses.replace(base.stage2, steps=2)}
  base = dataclasses.replace(base, name="base", **short)
  run.run(base, tmp_path, None, "test")
  capfd.readouterr()
  run.run(finetuned(base), tmp_path, None, "test")
  said = capfd.readouterr().err
  assert said.count("stage 1, autoencoder") == 1  # the decoder's own training; the base is there
  assert (
    "stage1.start.0.stage is the same as" in said and "stage 2 is the same as" in said and "stage 2, prior" not in said
  )


# -- other things to begin with


def short(**changes):
  """Micro, two steps a stage, without a discriminator."""
  made = micro.experiment(gan=False)
  return dataclasses.replace(
    made,
    **{
      "stage1": dataclasses.replace(made.stage1, steps=2),
      "stage2": dataclasses.replace(made.stage2, steps=2),
      **changes,
    },
  )


def test_a_prior_begins_with_another_and_trains_a_part(tmp_path, capfd):
  base = short()
  two = dataclasses.replace(base.stage2, start=(Start(stage=base.stage2),), trained=("backbone/blocks_0",), seed=3)
  made = dataclasses.replace(base, stage2=two)
  folder = Folder(run.run(made, tmp_path, None, "test"), made)
  said = capfd.readouterr().err
  assert "stage2.start.0.stage, prior" in said and "stage 2 begins its model with the weights of stage2-" in said
  first, second = Folder(folder.path, base).artefact(2), folder.artefact(2)
  assert first is not None and second is not None and first.weights.keys() == second.weights.keys()
  for name, a in first.weights.items():
    assert np.array_equal(a, second.weights[name]) == (not name.startswith("params/backbone/blocks_0")), name
  assert latents.load(folder.path).sample(labels=[1]).shape == (1, 16, 16, 1)


def test_released_weights(tmp_path):
  base = short(stage2=None)
  there = Folder(run.run(base, tmp_path / "a", None, "test"), base).stage(1)
  file = tmp_path / "release.safetensors"
  shutil.copyfile(there / artefact.WEIGHTS, file)
  digest = hashlib.sha256(file.read_bytes()).hexdigest()

  def declared(**fields):
    release = Released(**{"path": str(file), "sha256": digest, "statistics": (2.0, 0.5), **fields})
    one = dataclasses.replace(base.stage1, start=(Start(stage=release),), trained=("decoder",))
    return dataclasses.replace(base, name="tuned", stage1=one)

  made = declared()
  moved = declared(path=str(tmp_path / "elsewhere"))
  assert addresses(moved) == addresses(made) != addresses(declared(sha256="0" * 64))
  assert loads(dumps(made), "x") == made
  folder = Folder(run.run(made, tmp_path / "b", None, "test"), made)
  mine, theirs = folder.artefact(1), artefact.read(there)
  assert mine is not None and theirs is not None
  for name, a in theirs.weights.items():
    assert np.array_equal(a, mine.weights[name]) == (not name.startswith("params/decoder")), name
  assert mine.facts["statistics"]["mean"] == [0.5] * 4 and mine.facts["statistics"]["std"] == [0.5] * 4
  for wrong, words in (
    (declared(sha256="0" * 64), "is not the declared file"),
    (moved, "cannot be read"),
    (declared(sha256="12"), "64 hex digits"),
  ):
    with pytest.raises(UserError, match=words):
      run.run(wrong, tmp_path / "c", None, "test")
  assert not (tmp_path / "c").exists()


@pytest.mark.slow
def test_the_network_of_a_loss_goes_on(tmp_path):
  base = micro.experiment()
  base = dataclasses.replace(base, stage1=dataclasses.replace(base.stage1, steps=4), stage2=None)
  start = Start(stage=base.stage1, source="losses/gan", into="losses/gan")
  one = dataclasses.replace(base.stage1, steps=0, start=(start,))
  made = dataclasses.replace(base, name="on", stage1=one)
  folder = Folder(run.run(made, tmp_path, None, "test"), made)
  first, second = (artefact.read_losses(f.stage(1)) for f in (Folder(folder.path, base), folder))
  assert first and first.keys() == second.keys() and all(n.startswith("gan/params/") for n in first)
  assert all(np.array_equal(first[name], second[name]) for name in first)
  fresh = build_step(made, 1, micro.one_device()).init().params["disc"]
  assert not np.array_equal(first["gan/params/conv0/kernel"], fresh["conv0"]["kernel"])


def stacked(base, **changes):
  outer = Autoencoder(
    encoder=ConvEncoder(ch=8, mult=(1, 1), blocks=1, out=6, mid_attention=False),
    bottleneck=KL(dim=3),
    decoder=ConvDecoder(ch=8, mult=(1, 1), blocks=1, channels=4, mid_attention=False),
  )
  fields = {"start": (Start(stage=base.stage1, into="inner"),), "trained": ("outer",), **changes}
  model = Stacked(inner=base.stage1.model.clone(), outer=outer)
  losses = {"l2": L2(), "kl": Weight(1e-4)}
  return dataclasses.replace(
    base, name="stacked", stage1=dataclasses.replace(base.stage1, model=model, losses=losses, **fields)
  )


@pytest.mark.slow
def test_an_autoencoder_over_a_frozen_one(tmp_path):
  base = short()
  made = stacked(base)
  folder = Folder(run.run(made, tmp_path, None, "test"), made)
  inner, whole = Folder(folder.path, dataclasses.replace(base, stage2=None)).artefact(1), folder.artefact(1)
  assert inner is not None and whole is not None
  for name, a in inner.weights.items():
    collection, path = name.split("/", 1)
    np.testing.assert_array_equal(a, whole.weights[f"{collection}/inner/{path}"], err_msg=name)
  for key in ("mean", "std"):
    np.testing.assert_allclose(
      whole.weights[f"statistics/inner_units/{key}"], inner.facts["statistics"][key], rtol=1e-6
    )
  model = latents.load(folder.path)
  x = np.random.default_rng(0).uniform(-1, 1, (2, 16, 16, 1)).astype(np.float32)
  latent = model.encode(x)
  assert latent.z.shape == (2, 2, 2, 3) and model.decode(latent).shape == x.shape
  assert model.sample(labels=[0, 1]).shape == x.shape
  # what is compared is the inner latent in its own units
  mean, std = (np.asarray(inner.facts["statistics"][k]) for k in ("mean", "std"))
  variables = model.arrays["variables"]
  _, decoded = made.stage1.model.apply(variables, x, train=False)
  z = base.stage1.model.apply({"params": variables["params"]["inner"]}, x, method="encode").z
  np.testing.assert_allclose(decoded.target, (z - mean) / std, rtol=1e-4, atol=1e-4)
  everything = build_step(stacked(base, trained=("",)), 1, micro.one_device())  # statistics are measured, not trained
  assert not any("statistics" in name for name in flatten(everything.state))
  assert any("statistics" in name for name in flatten(everything.frozen["fixed"]))


def test_a_finished_stage_is_prolonged(tmp_path, capfd):
  base = short(stage2=None)
  longer = dataclasses.replace(base, name="longer", stage1=prolonged(base.stage1, 0))
  folder = Folder(run.run(longer, tmp_path, None, "test"), longer)
  assert "(2 steps, averaged), and with a fresh optimiser" in capfd.readouterr().err
  first, second = Folder(folder.path, base).artefact(1), folder.artefact(1)
  assert first is not None and second is not None
  assert all(np.array_equal(a, second.weights[name]) for name, a in first.weights.items())


# -- the store


def test_a_finished_stage_outlives_its_run_and_drops_its_checkpoints(tmp_path, capfd):
  base = short(stage2=None)
  place = Folder(run.run(base, tmp_path, "a", "test"), base).stage(1)
  assert not (place / "checkpoints").exists() and (place / artefact.WEIGHTS).stat().st_nlink == 2
  (kept,) = (tmp_path / stages.STORE).iterdir()
  assert kept.name.startswith(addresses(base)[0])
  shutil.rmtree(tmp_path / "a")
  capfd.readouterr()
  again = Folder(run.run(base, tmp_path, "b", "test"), base)
  said = capfd.readouterr().err
  assert "stage 1 is the same as" in said and "parameters" not in said and again.artefact(1) is not None
  shutil.rmtree(tmp_path / stages.STORE)  # at any time
  assert again.artefact(1) is not None
  held = dataclasses.replace(base, stage1=dataclasses.replace(base.stage1, keep_checkpoints=True, steps=1))
  place = Folder(run.run(held, tmp_path, "c", "test"), held).stage(1)
  assert (place / "checkpoints" / "1").exists()
  assert addresses(held) == addresses(dataclasses.replace(held, stage1=dataclasses.replace(base.stage1, steps=1)))


def test_a_stage_has_its_own_seed():
  base = short()
  others = [dataclasses.replace(base, stage2=dataclasses.replace(base.stage2, seed=seed)) for seed in (None, 0, 1)]
  (one, two), (_, zero), (same, other) = (addresses(made) for made in others)
  assert one == same and two == zero != other  # whoever gives the seed
  assert addresses(dataclasses.replace(base, seed=1))[0] != one
  held = dataclasses.replace(base, seed=1, stage1=dataclasses.replace(base.stage1, seed=0))
  assert addresses(held) == (one, addresses(others[2])[1])
  a, b = (build_step(made, 2, micro.one_device()).init().params["prior"] for made in others[1:])
  flat_a, flat_b = flatten(a), flatten(b)
  assert any(not np.array_equal(flat_a[n], flat_b[n]) for n in flat_a)


# -- what strangers write


@pytest.mark.parametrize(
  "change,words",
  [
    (lambda b: Start(stage=b.stage1, source="decodr"), r"start\.0\.source: that stage has no part 'decodr'.*decoder"),
    (lambda b: Start(stage=b.stage1, into="teacher"), r"start\.0\.into: the model has no array 'params/teacher"),
    (lambda b: Start(stage=b.stage1, source="losses/gan", into="losses/gan"), "has no loss 'gan'"),
  ],
)
def test_paths_of_starts_are_checked_before_anything_is_trained(tmp_path, change, words):
  base = short(stage2=None)
  one = dataclasses.replace(base.stage1, start=(change(base),))
  with pytest.raises(UserError, match=words):
    run.run(dataclasses.replace(base, stage1=one), tmp_path, None, "test")
  assert not list(tmp_path.iterdir())


def test_shapes_that_differ_name_both_flags(tmp_path):
  base = short(stage2=None)
  wide = base.stage1.model.clone(encoder=base.stage1.model.encoder.clone(ch=12))
  one = dataclasses.replace(base.stage1, model=wide, start=(Start(stage=base.stage1),))
  made = dataclasses.replace(base, stage1=one)
  with pytest.raises(
    UserError, match=r"--stage1\.start\.0\.stage\.model\.encoder\.ch and --stage1\.model\.encoder\.ch"
  ):
    run.run(made, tmp_path, None, "test")
  assert not list(tmp_path.iterdir())


def test_stages_that_cannot_stand_where_they_stand(tmp_path):
  base = short()
  with pytest.raises(UserError, match=r"stage1\.start\.0\.stage is a stage 2"):
    check(dataclasses.replace(base, stage1=dataclasses.replace(base.stage1, start=(Start(stage=base.stage2),))))
  with pytest.raises(UserError, match=r"stage1\.start\.0\.stage\.steps is -1"):
    bad = dataclasses.replace(base.stage1, steps=-1)
    check(dataclasses.replace(base, stage1=dataclasses.replace(base.stage1, start=(Start(stage=bad),))))
  start = Start(stage=base.stage1)
  one = dataclasses.replace(base.stage1, start=(start,))
  object.__setattr__(start, "stage", one)
  with pytest.raises(UserError, match="is a stage that it stands in"):
    check(dataclasses.replace(base, stage1=one))


def test_a_base_stage_on_other_data(tmp_path):
  from latents.data import Folder as Pictures
  from tests.test_folder import paint

  pictures = paint(tmp_path / "pictures")
  base = short(stage2=None)

  def session():  # a process lists its files once
    one = dataclasses.replace(base.stage1, data=Pictures(str(pictures), size=16, channels=1))
    tuned = dataclasses.replace(base.stage1, start=(Start(stage=one),), trained=("decoder",))
    return dataclasses.replace(base, stage1=one), dataclasses.replace(base, stage1=tuned)

  plain, tuned = session()
  run.run(plain, tmp_path / "runs", "a", "test")
  shutil.copytree(tmp_path / "runs" / "a", tmp_path / "runs" / "b")
  folder = Folder(tmp_path / "runs" / "b", tuned)
  folder.write_declaration()
  paint(tmp_path / "more")
  shutil.copyfile(tmp_path / "more" / "1.png", pictures / "new.png")
  with pytest.raises(UserError, match=r"data of stage1\.start\.0\.stage are not those"):
    run.run(session()[1], tmp_path / "runs", "b", "test")
