"""Layouts of others: names and turns both ways, sizes by the arrays' shapes, and what does not fit said in one line."""

import dataclasses
import hashlib
import json
import os
import pickle
import re
import typing
import zipfile

import numpy as np
import pytest

import latents
from latents import interop, main
from latents.autoencoders import Autoencoder, Stacked
from latents.bottlenecks import FSQ, KL, NoBottleneck
from latents.data import Shapes
from latents.declare import Evaluation, Experiment, Released, Stage1, Start
from latents.decoders import DCDecoder
from latents.encoders import DCEncoder
from latents.errors import UserError
from latents.interop.mapping import CONV, CONV1, DENSE, KERNEL, LINEAR, POINTWISE, SAME, Table, Turn
from latents.losses import L1, Weight
from latents.pretrained.readers import read_weights
from latents.runs.run import run as bring
from latents.store import artefact
from latents.store.folder import open_folder
from tests import releases

MODELS = {
  "plain": {},
  "sixteen channels, no quant_conv": {"dim": 16, "quant": False},
  "attention, three levels": {"attention": (1,), "mult": (1, 2, 1)},
  "one level": {"mult": (1,)},
}


# -- the table


def test_a_table_says_both_ways():
  table = Table.of({
    "down{i}": ("a.{i}", {"conv": ("c", CONV)}),
    "up{k}": ("b.{~k}", {"qkv": (("q", "k", "v"), LINEAR), "out": ("(o|proj)", CONV1)}),
    "time": ("blocks.{n}.t", {"scale": ("w", SAME)}),
  })  # fmt: skip
  rng = np.random.default_rng(0)
  theirs = {
    **{f"a.{i}.c.weight": rng.normal(size=(2, 3, 5, 7)) for i in range(11)},
    **{f"b.{i}.{name}.weight": rng.normal(size=(4, 6)) for i in range(3) for name in "qkv"},
    **{f"b.{i}.o.weight": rng.normal(size=(4, 6, 1, 1)) for i in range(3)},
    **dict.fromkeys([f"blocks.{i}.t.w" for i in range(4)], rng.normal(size=5)),
  }
  theirs = {name: array.astype(np.float32) for name, array in theirs.items()}
  ours = table.take(theirs, "x")
  np.testing.assert_array_equal(ours["down10/conv/kernel"][1, 2], theirs["a.10.c.weight"][..., 1, 2].T)
  assert ours["up0/qkv/kernel"].shape == (6, 12)
  np.testing.assert_array_equal(ours["up0/qkv/kernel"][:, 4:8], theirs["b.2.k.weight"].T)
  np.testing.assert_array_equal(ours["up2/out/kernel"], theirs["b.0.o.weight"][..., 0, 0].T)
  assert [n for n in ours if n.startswith("time")] == ["time/scale"]
  back = table.give({**ours})
  assert len(back) == len(theirs) - 3  # as many copies as others show: those of the blocks are counted by their own
  assert all(np.array_equal(back[name], theirs[name]) for name in back)
  other = {name.replace(".o.", ".proj."): array for name, array in theirs.items()}
  assert all(np.array_equal(a, ours[name]) for name, a in table.take(other, "x").items())
  assert table.names("up0/qkv/bias", ours) == ["b.2.q.bias", "b.2.k.bias", "b.2.v.bias"]
  theirs["blocks.2.t.w"] = theirs["blocks.2.t.w"] + 1
  with pytest.raises(UserError, match=r"x: blocks.2.t.w is no copy of blocks.0.t.w"):
    table.take(theirs, "x")
  with pytest.raises(UserError, match=r"no place for 'up0/qkf/kernel' \(did you mean up"):
    table.give({"up0/qkf/kernel": np.zeros(3)})


@pytest.mark.parametrize("turn", [KERNEL, DENSE, POINTWISE, SAME])
@pytest.mark.parametrize("shape", [(3, 5), (3, 5, 1, 1)])
def test_turns_are_undone(turn: Turn, shape):
  a = np.random.default_rng(0).normal(size=shape).astype(np.float32)
  back = turn.give(turn.take(a))
  np.testing.assert_array_equal(back.ravel(), a.ravel())
  assert turn in (DENSE, POINTWISE) or back.shape == a.shape


# -- the layouts


def test_a_declaration_may_name_every_layout():
  known = typing.get_args(typing.get_type_hints(Released)["layout"])
  assert set(known) == {"latents", *interop.LAYOUTS}


@pytest.mark.parametrize("layout", ["diffusers-kl", "ldm-kl"])
@pytest.mark.parametrize("name", MODELS)
def test_a_round_trip_is_equal_to_the_bit(name, layout):
  model = releases.model(**MODELS[name])
  ours = releases.weights(model)
  theirs = interop.give(layout, ours)
  assert interop.guess(theirs, "x") == layout
  found, again = interop.read(layout, theirs, {}, "x")
  assert found == model and again.keys() == ours.keys()
  assert all(np.array_equal(again[n], ours[n]) and again[n].dtype == np.float32 for n in ours)
  back = interop.give(layout, again)
  assert back.keys() == theirs.keys() and all(np.array_equal(back[n], theirs[n]) for n in theirs)


def test_widths_that_the_first_one_does_not_divide():
  model = releases.model(ch=16, mult=(2, 3), groups=16, stem=32)
  model = model.clone(decoder=model.decoder.clone(ch=16, mult=(2, 3), groups=16))
  found, _ = interop.read("diffusers-kl", releases.arrays(of=model), {"norm_num_groups": 16}, "x")
  assert found == model
  with pytest.raises(UserError, match="32 groups do not divide 48 channels"):
    interop.read("diffusers-kl", releases.arrays(of=model), {}, "x")


def test_names_of_before():
  new = {"to_q": "query", "to_k": "key", "to_v": "value", "to_out.0": "proj_attn"}
  theirs = releases.arrays()
  old = {}
  for name, array in theirs.items():
    for now, before in new.items():
      name = name.replace(f"attentions.0.{now}.", f"attentions.0.{before}.")
    old[name] = array
  assert "encoder.mid_block.attentions.0.query.weight" in old and interop.guess(old, "x") == "diffusers-kl"
  ours = interop.read("diffusers-kl", old, {}, "x")[1]
  back = interop.give("diffusers-kl", ours)
  assert back.keys() == theirs.keys() and all(np.array_equal(back[n], theirs[n]) for n in theirs)


def test_a_checkpoint_round_an_autoencoder():
  inner = releases.arrays("ldm-kl")
  outer = {f"state_dict/first_stage_model.{name}": array for name, array in inner.items()}
  more = {"state_dict/model.diffusion_model.out.weight": np.zeros(3), "optimizer_states/0/state/0/exp_avg": np.zeros(3)}
  assert interop.guess({**more, **outer}, "x") == "ldm-kl"
  one, two = (interop.read("ldm-kl", a, {}, "x")[1] for a in ({**more, **outer}, inner))
  assert one.keys() == two.keys() and all(np.array_equal(one[n], two[n]) for n in one)
  alone = {f"state_dict/{name}": array for name, array in inner.items()} | {"state_dict/loss.logvar": np.zeros(())}
  assert interop.guess(alone, "x") == "ldm-kl" and len(interop.read("ldm-kl", alone, {}, "x")[1]) == len(one)


def broken(change):
  theirs = releases.arrays()
  change(theirs)
  return theirs


WRONG = {
  "missing": (lambda a: a.pop("decoder.conv_in.bias"), r"x does not fit: 1 missing \(decoder.conv_in.bias\)$"),
  "missing, of the sizes": (
    lambda a: a.pop("encoder.conv_in.weight"),
    r"x is no diffusers-kl: it lacks encoder.conv_in",
  ),
  "extra": (lambda a: a.update({"foo": np.zeros(3)}), r"x is no diffusers-kl: 1 extra \(foo\)$"),
  "misspelt": (
    lambda a: a.update({"decoder.conv_inn.weight": a.pop("decoder.conv_in.weight")}),
    r"1 extra \(decoder.conv_inn.weight \(did you mean decoder.conv_in.weight\?\)\)$",
  ),
  "extra, as if of another size": (
    lambda a: a.update({"encoder.down_blocks.0.resnets.0.conv_shortcut.bias": np.zeros(32)}),
    r"1 extra \(encoder.down_blocks.0.resnets.0.conv_shortcut.bias\)$",
  ),
  "misshapen": (
    lambda a: a.update({"decoder.conv_norm_out.bias": np.zeros(3)}),
    r"1 misshapen \(decoder.conv_norm_out.bias \(3,\) instead of \(32,\)\)$",
  ),
  "misshapen in a kernel": (
    lambda a: a.update({"decoder.conv_out.weight": a["decoder.conv_out.weight"][:, :7]}),
    r"1 misshapen \(decoder.conv_out.weight \(3, 7, 3, 3\) instead of \(3, 32, 3, 3\)\)$",
  ),
  "not finite": (
    lambda a: a.update({"decoder.conv_out.bias": np.full(3, np.nan, np.float32)}),
    r"x: decoder.conv_out.bias holds numbers that are not finite",
  ),
}


@pytest.mark.parametrize("name", WRONG)
def test_what_does_not_fit_is_named(name):
  change, words = WRONG[name]
  with pytest.raises(UserError, match=words):
    interop.read("diffusers-kl", broken(change), {}, "x")


def test_what_a_config_says_and_no_array_shows():
  fields = {"widths": (4, 8), "depths": (1, 1), "attention": (), "head": 4}
  deep = Autoencoder(
    DCEncoder(out=4, **fields), NoBottleneck(), DCDecoder(norms=("rms",) * 2, acts=("silu",) * 2, **fields)
  )
  for layout, theirs, config, words in (
    ("diffusers-kl", releases.arrays(), {"act_fn": "mish"}, "the activation is silu, not 'mish'"),
    ("diffusers-kl", releases.arrays(), {"norm_num_groups": 5}, "5 groups do not divide 32 channels"),
    ("diffusers-dc", releases.arrays("diffusers-dc", deep), {"decoder_norm_types": "layer_norm"}, "not layer_norm"),
    ("diffusers-dc", releases.arrays("diffusers-dc", deep), {"decoder_act_fns": "gelu"}, "silu or relu"),
  ):
    interop.read(layout, theirs, {}, "x")
    with pytest.raises(UserError, match=words):
      interop.read(layout, theirs, config, "x")


def test_a_guess_is_certain_or_none():
  for theirs, words in (
    (broken(WRONG["misspelt"][0]), r"nearest is diffusers-kl: 1 that it does not know \(decoder.conv_inn.weight"),
    ({"a": np.zeros(3)}, "x is of no layout for certain"),
    ({}, "x is of no layout for certain"),
    ({"encoder.conv_in.weight": np.zeros((32, 3, 3, 3))}, "x is of no layout for certain"),  # both call it so
  ):
    with pytest.raises(UserError, match=words):
      interop.guess(theirs, "x")


def test_a_number_that_half_precision_cannot_hold():
  ours = releases.weights(releases.model())
  ours["decoder/conv_out/bias"][1] = 7e4
  with pytest.raises(UserError, match=r"decoder.conv_out.bias has numbers up to 7e\+04, which float16 cannot hold"):
    interop.give("diffusers-kl", ours, np.float16)


# -- the commands


def call(*words) -> int:
  return main.main([str(word) for word in words])


@pytest.fixture(scope="module")
def release(tmp_path_factory):
  """(the folder, the file of a release with its config.json)."""
  folder = tmp_path_factory.mktemp("release")
  config = {"scaling_factor": 0.3611, "shift_factor": 0.1159, "sample_size": 16}
  theirs = releases.arrays(dim=16, quant=False)
  return folder, releases.write(folder / "vae" / "diffusion_pytorch_model.safetensors", theirs, config)


def test_in_and_out(release, capsys):
  folder, file = release
  assert call("import", file, "--name", "flux", "--runs", folder / "runs") == 0
  run = open_folder(folder / "runs" / "flux")
  one = run.experiment.stage1
  assert one.steps == 0 and one.trained == () and one.data.shape == (16, 16, 3)
  assert one.start[0].stage.statistics == (0.3611, 0.1159)  # as the config.json says
  made = run.artefact(1)
  assert made is not None and made.facts["statistics"]["std"] == [1 / 0.3611] * 16
  model = latents.load(run.path)
  x = np.random.default_rng(0).uniform(-1, 1, (2, 16, 24, 3)).astype(np.float32)
  assert model.encode(x).z.shape == (2, 8, 12, 16) and model.reconstruct(x).shape == x.shape
  for layout, out in (("diffusers-kl", "a"), ("ldm-kl", "b")):
    assert call("export", run.path, "--layout", layout, "--out", folder / out) == 0
  assert "'shift_factor': 0.1159" in capsys.readouterr().err  # ldm-kl has no place for it
  back, first = read_weights(str(folder / "a" / file.name)), read_weights(str(file))
  assert back.keys() == first.keys() and all(np.array_equal(back[n], first[n]) for n in first)
  config = json.loads((folder / "a" / "config.json").read_text())
  assert (config["scaling_factor"], config["shift_factor"], config["use_quant_conv"]) == (0.3611, 0.1159, False)
  # LDM's file says no units, so a release is named; then all is as it was
  assert call("import", folder / "b", "--name", "again", "--runs", folder / "runs") == 2
  assert "does not say the units of its latents: --layout sd, sdxl, sd3, flux" in capsys.readouterr().err
  assert not (folder / "runs" / "again").exists()
  assert call("import", folder / "b", "--layout", "flux", "--name", "again", "--runs", folder / "runs") == 0
  again = open_folder(folder / "runs" / "again").artefact(1)
  assert again is not None and again.facts["statistics"] == made.facts["statistics"]
  assert again.latents == made.latents


def test_a_deep_compression_autoencoder_comes_in_and_goes_out(tmp_path):
  """Without a posterior: its latent is what the encoder gives."""
  sizes: dict = {"widths": (16, 32), "depths": (1, 1), "attention": (1,), "head": 16}
  model = Autoencoder(
    DCEncoder(out=8, **sizes), NoBottleneck(), DCDecoder(norms=("rms",) * 2, acts=("silu",) * 2, **sizes)
  )
  theirs = interop.give("diffusers-dc", releases.weights(model))
  config = {"_class_name": "AutoencoderDC", "scaling_factor": 0.41407, "sample_size": 16, "attention_head_dim": 16}
  file = releases.write(tmp_path / "dc" / "diffusion_pytorch_model.safetensors", theirs, config)
  assert call("import", file, "--name", "dc", "--runs", tmp_path / "runs") == 0
  made = latents.load(tmp_path / "runs" / "dc")
  assert made.experiment.stage1.losses == {}
  x = np.random.default_rng(0).uniform(-1, 1, (1, 16, 16, 3)).astype(np.float32)
  assert made.encode(x).z.shape == (1, 8, 8, 8) and made.reconstruct(x).shape == x.shape
  assert call("export", tmp_path / "runs" / "dc", "--layout", "diffusers-dc", "--out", tmp_path / "out") == 0
  back = read_weights(str(tmp_path / "out" / file.name))
  assert back.keys() == theirs.keys() and all(np.array_equal(back[n], theirs[n]) for n in theirs)
  assert json.loads((tmp_path / "out" / "config.json").read_text())["scaling_factor"] == 0.41407


def test_units_of_each_channel_come_back(release, tmp_path):
  _, file = release
  mean, std = np.linspace(-1, 1, 16).tolist(), np.linspace(1, 2, 16).tolist()
  config = {"scaling_factor": 1.0, "latents_mean": mean, "latents_std": std}
  there = releases.write(tmp_path / "a" / file.name, read_weights(str(file)), config)
  assert call("import", there.parent, "--name", "x", "--runs", tmp_path / "runs") == 0
  found = open_folder(tmp_path / "runs" / "x").artefact(1).facts["statistics"]
  np.testing.assert_allclose(found["mean"], mean)
  np.testing.assert_allclose(found["std"], std)
  assert call("export", tmp_path / "runs" / "x", "--layout", "diffusers-kl", "--out", tmp_path / "b") == 0
  again = json.loads((tmp_path / "b" / "config.json").read_text())
  np.testing.assert_allclose(again["latents_mean"], mean)
  np.testing.assert_allclose(again["latents_std"], std)


@pytest.mark.parametrize("dtype", ["float16", "bfloat16"])
def test_half_precision_comes_back_as_it_was(release, tmp_path, dtype):
  _, file = release
  assert call("import", file, "--name", "x", "--runs", tmp_path) == 0
  words = ("--layout", "diffusers-kl", "--dtype", dtype)
  assert call("export", tmp_path / "x", *words, "--out", tmp_path / "one") == 0
  half = read_weights(str(tmp_path / "one" / file.name))
  assert {str(a.dtype) for a in half.values()} == {dtype}
  assert call("import", tmp_path / "one", "--name", "y", "--runs", tmp_path) == 0
  assert call("export", tmp_path / "y", *words, "--out", tmp_path / "two") == 0
  assert (tmp_path / "one" / file.name).read_bytes() == (tmp_path / "two" / file.name).read_bytes()


def test_measured_units(tmp_path, capsys):
  file = releases.write(tmp_path / "a.safetensors")
  words = ("import", file, "--name", "x", "--runs", tmp_path, "--data", "photos", "--size", 32)
  assert call(*words) == 0
  run = open_folder(tmp_path / "x")
  assert run.experiment.stage1.start[0].stage.statistics == "measured"
  found = run.artefact(1).facts["statistics"]
  assert found["count"] > 0 and min(found["std"]) > 0
  assert call("import", file, "--name", "y", "--runs", tmp_path, "--data", "folder:/nowhere") == 2
  assert "/nowhere" in capsys.readouterr().err and not (tmp_path / "y").exists()


def test_nothing_is_measured_without_data(release, tmp_path, capsys):
  _, file = release
  assert call("import", file, "--name", "x", "--runs", tmp_path) == 0
  assert call("evaluate", tmp_path / "x") == 2
  assert "the data of this run are not named yet: say --data FOLDER" in capsys.readouterr().err


class Evil:
  def __reduce__(self):
    return os.system, ("touch evil",)


def test_what_cannot_come_in(release, tmp_path, capsys):
  _, file = release
  evil = tmp_path / "evil.ckpt"
  with zipfile.ZipFile(evil, "w") as archive:
    archive.writestr("archive/data.pkl", pickle.dumps({"state_dict": Evil()}, protocol=2))
  small = releases.write(tmp_path / "small.safetensors")
  (tmp_path / "empty").mkdir()
  (tmp_path / "text").write_text("no weights")
  other = releases.write(tmp_path / "b" / "x.safetensors")
  other.with_name("config.json").write_text("{")
  last = {name: a[:1] for name, a in releases.arrays().items() if name.startswith("decoder.conv_out")}
  grey = releases.write(tmp_path / "grey.safetensors", releases.arrays() | last)
  for words, told in (
    ([evil, "--layout", "sd"], "refused: the pickle asks for posix.system"),
    ([tmp_path / "none"], "none does not exist"),
    ([tmp_path / "empty"], "is a folder without diffusion_pytorch_model.safetensors"),
    ([tmp_path / "text"], "not a weights file"),
    ([file, "--layout", "flax"], r"there is no layout 'flax' \(did you mean flux\?\): one of sd, "),
    ([file, "--layout", "ldm-kl"], "is no ldm-kl: .* extra"),
    ([small, "--layout", "flux"], "has latents of 4 channels, that release has 16"),
    ([small], "does not say the units"),
    ([small, "--statistics", "0,1"], "the scale is above 0"),
    ([small, "--statistics", "1"], "is not SCALE,SHIFT"),
    ([other, "--layout", "sd"], "config.json cannot be read"),
    ([grey, "--layout", "sd"], "encodes 3 channels and decodes 1: a stage 1 gives back what it is given"),
    (["s3://bucket/x", "--layout", "sd"], "only paths of this machine"),
    ([small, "--layout", "sd", "--size", "x"], "is not a whole number"),
    ([small, "--layout", "sd", "--size", "33"], "the signal's size 33x33 does not divide by the encoder's stride 2"),
  ):
    assert call("import", *words, "--name", "x", "--runs", tmp_path / "runs") == 2, words
    said = capsys.readouterr().err
    assert said.count("\n") == 1, said
    assert re.search(told, said), (words, said)
  assert not (tmp_path / "runs").exists() and not os.path.exists("evil")


def test_what_cannot_go_out(release, tmp_path, capsys):
  _, file = release
  assert call("import", file, "--name", "x", "--runs", tmp_path) == 0
  (tmp_path / "full").mkdir()
  (tmp_path / "full" / "a").touch()
  capsys.readouterr()
  for words, told in (
    (["--layout", "diffusers", "--out", tmp_path / "o"], "no layout 'diffusers' (did you mean diffusers-vq?)"),
    (["--layout", "ldm-kl", "--out", tmp_path / "full"], "is there already: nothing was overwritten"),
  ):
    assert call("export", tmp_path / "x", *words) == 2
    assert told in capsys.readouterr().err
  assert not (tmp_path / "o").exists()


def test_models_that_a_layout_does_not_hold():
  held = interop.LAYOUTS["diffusers-kl"]
  assert held.config is not None
  units = {"mean": [0.0] * 4, "std": [1.0] * 4}
  plain = releases.model()
  grid = {"mean": [[[0.0]]], "std": [[[1.0]]]}
  codes = plain.clone(bottleneck=FSQ(levels=(5, 5)))
  for model, told, words in (
    (codes, units, "holds a ConvEncoder, KL and a ConvDecoder, and the run has FSQ"),
    (plain.clone(decoder=plain.decoder.clone(blocks=2)), units, "encoder and decoder of the same sizes"),
    (plain.clone(encoder=plain.encoder.clone(stem=8)), units, "encoder and decoder of the same sizes"),
    (plain.clone(encoder=plain.encoder.clone(out=12)), units, r"gives 2 x 4 features for 4 channels, this one 12"),
    (releases.model(least=4), units, "one number of groups in all norms, this model 8, 16, 32"),
    (plain.clone(bottleneck=KL(4, 0.1, projected=False)), units, "no place for a spread of 0.1"),
    (plain.clone(bottleneck=KL(4, variance="uniform")), units, "a variance for each number of a latent"),
    (plain, grid, "one an element of the grid"),
  ):
    with pytest.raises(UserError, match=words):
      held.config(model, told, (16, 16, 3))
  apart = plain.clone(decoder=plain.decoder.clone(attention=(1,)))
  said = held.config(apart, units, (16, 16, 3))
  assert said["up_block_types"] == ["AttnUpDecoderBlock2D", "UpDecoderBlock2D"]
  assert said["down_block_types"] == ["DownEncoderBlock2D"] * 2
  theirs = interop.LAYOUTS["ldm-kl"].check
  theirs(plain)
  few = {"groups": 8}
  with pytest.raises(UserError, match=r"32 groups in all norms, this model 8$"):
    theirs(plain.clone(encoder=plain.encoder.clone(**few), decoder=plain.decoder.clone(**few)))
  with pytest.raises(UserError, match="Stacked"):
    held.check(Stacked(inner=plain, outer=plain.clone()))


def test_a_decoder_is_tuned_over_an_imported_encoder(release, tmp_path):
  """The stage of an imported run is a stage that others begin with; its file need not be there any more."""
  theirs = releases.write(tmp_path / "gone" / release[1].name, read_weights(str(release[1])))
  assert call("import", theirs, "--layout", "flux", "--name", "x", "--runs", tmp_path, "--size", 16) == 0
  theirs.unlink()
  base = open_folder(tmp_path / "x").experiment.stage1
  one = dataclasses.replace(
    base, data=Shapes(size=16, count=8, test=4), losses={"l1": L1(), "kl": Weight(0.0)}, steps=1, batch=2,
    start=(Start(stage=base),), trained=("decoder",),
  )  # fmt: skip
  experiment = Experiment(name="tuned", stage1=one, stage2=None, evaluation=Evaluation(images=4, batch=4))
  made = open_folder(bring(experiment, tmp_path, None, "test")).artefact(1)
  first = open_folder(tmp_path / "x").artefact(1)
  assert made is not None and made.facts["statistics"] == first.facts["statistics"] and made.latents == first.latents
  for name, a in first.weights.items():
    assert np.array_equal(made.weights[name], a) == ("decoder" not in name), name


def test_a_stage_begins_with_a_release(release, tmp_path):
  """An experiment's own declaration of released weights, by their layout."""
  _, file = release
  model, ours = interop.read("diffusers-kl", read_weights(str(file)), {}, "x")
  digest = hashlib.sha256(file.read_bytes()).hexdigest()
  made = Released(path=str(file), sha256=digest, layout="diffusers-kl", statistics=(2.0, 0.5))
  one = Stage1(
    data=Shapes(size=16, count=8, test=4), model=model, losses={"l1": L1(), "kl": Weight(0.0)}, steps=1, batch=2,
    start=(Start(stage=made),), trained=("decoder",), ema=0.0,
  )  # fmt: skip
  experiment = Experiment(name="tuned", stage1=one, stage2=None, evaluation=Evaluation(images=4, batch=4))
  folder = bring(experiment, tmp_path, None, "test")
  found = artefact.read(open_folder(folder).stage(1))
  assert found is not None
  for name, a in ours.items():
    assert np.array_equal(found.weights[f"params/{name}"], a) == (not name.startswith("decoder")), name
  assert found.facts["statistics"]["mean"] == [0.5] * 16
