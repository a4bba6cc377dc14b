"""Merged tokens all the way: cache, training, likelihood, samples, a finished run that is moved, and bad input."""

import dataclasses
import json
import math
import shutil

import jax
import numpy as np
import pytest

import latents
from latents.backbones import Transformer
from latents.bottlenecks import EMAVQ, ResidualVQ
from latents.declare import addresses, check, dumps, loads
from latents.errors import UserError
from latents.evaluate import CodeCapacity, Held, Layout
from latents.priors import AutoregressivePrior
from latents.recodes import END, ImageBPE, Recode, latent
from latents.recodes.base import lengths
from latents.runs import rehearsal, run
from latents.store import artefact
from latents.store.folder import Folder, open_folder
from latents.train.build_step import abstract_prior, build_step
from latents.types import Latent
from latents.use import files, held_out, merging
from latents.use.sample import Sampler
from tests import micro
from tests.test_nn import randomise

LENGTH, MERGES, VOCAB = 16, 10, 16


def transformer(vocab: int = VOCAB + MERGES + 1, length: int = LENGTH, places: int = 16) -> AutoregressivePrior:
  backbone = Transformer(vocab=vocab, width=16, depth=1, heads=2, length=length, classes=10, places=places)
  return AutoregressivePrior(backbone=backbone)


def experiment(**changes):
  """micro's codes on 4 x 4, merged: of 16 codes and 10 merges, and the end."""
  made = micro.experiment(codes=True, gan=False)
  recode: Recode = ImageBPE(length=LENGTH, merges=MERGES)
  two = {"cache": True, "recode": recode, "prior": transformer(), "held_out_every": 3, **changes}
  return dataclasses.replace(made, stage2=dataclasses.replace(made.stage2, **two))


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
  return Folder(run.run(experiment(), tmp_path_factory.mktemp("runs"), None, "x"), experiment())


@pytest.fixture(scope="module")
def model(folder):
  return latents.load(folder.path)


def held_out_codes(model) -> np.ndarray:
  x = np.concatenate([x[mask] for x, mask in held_out.signals(model.experiment)])
  return np.asarray(model.encode(x).codes)


def test_every_held_out_example_comes_back_exactly(model):
  """All of them, not only those that are scored."""
  records = model.experiment.stage2.data.records("test")
  codes = np.asarray(model.encode(np.stack([records[i]["x"] for i in range(len(records))])).codes)
  assert len(codes) == 297 and codes.shape[1:] == (4, 4)
  rows = model.fitted.merge(codes)
  again, cut, filled = model.fitted.expand(rows)
  np.testing.assert_array_equal(again, codes)
  assert not cut.any() and not filled.any() and lengths(rows).max() < LENGTH  # shorter


def test_what_is_trained_on_are_the_merged_training_codes(folder, model):
  """The table is the one of the training codes, and the cache holds their tokens; the codes themselves are gone."""
  place = folder.stage(2)
  assert sorted(p.name for p in (place / "merged").iterdir()) == [artefact.RECODE, "train"]
  assert not (place / "latents").exists()
  stored = np.load(place / "merged" / "train" / "stored.npy")
  source = model.experiment.stage2.data.records("train")
  assert stored.shape == (len(source), 2, LENGTH) and stored.dtype == np.int32
  some = np.asarray(model.encode(np.stack([source[i]["x"] for i in range(64)])).codes)
  np.testing.assert_array_equal(model.fitted.merge(some), stored[:64, 0])
  for name, array in artefact.read_recode(place).items():
    np.testing.assert_array_equal(artefact.read_arrays(place / "merged" / artefact.RECODE)[name], array)
    np.testing.assert_array_equal(model.fitted.table[name], array)
  assert model.fitted.table["origin"].tobytes().decode() == folder.artefact(1).latents


def test_scores_are_counted_per_code(folder, model):
  """bits of the whole latent over its 16 codes, and how much shorter it is."""
  scores = folder.scores()
  prior = scores["prior"]
  codes = held_out_codes(model)
  rows = model.fitted.merge(codes)
  assert {name: prior[name] for name in model.fitted.shortening(codes, rows)} == model.fitted.shortening(codes, rows)
  tokens = float(np.minimum(lengths(rows) + 1, LENGTH).mean())
  assert prior["nats_per_element"] == pytest.approx(prior["bits_per_element"] * math.log(2))
  # all tokens are nearly equally likely after six steps
  assert prior["nats_per_element"] * 16 == pytest.approx(tokens * math.log(27), rel=0.05)
  assert prior["bits_per_dim"] * 256 == pytest.approx(16 * prior["bits_per_element"])
  assert scores["samples"]["codes_filled"] > 0 and scores["samples"]["codes_cut"] >= 0
  lines = [json.loads(line) for line in (folder.path / "metrics.jsonl").read_text().splitlines()]
  held = [line["held_out/nll"] for line in lines if line["stage"] == 2 and "held_out/nll" in line]
  assert held and all(2 < value < 4 for value in held)


def test_the_likelihood_is_that_of_the_tokens_up_to_the_first_end():
  """A new transformer gives every token 1 / 27: the nats of an example are a count, END included where there is one."""
  prior, rows = transformer(places=0), np.full((3, LENGTH), END, np.int32)
  rows[0, :5], rows[1], rows[2, 4:] = 3, 7, 9  # five and an end; full; an end at once
  rngs = {name: jax.random.key(0) for name in ("params", "prior")}
  variables = prior.init(rngs, latent(rows), None, train=False, method="loss")
  nats = prior.apply(variables, latent(rows), None, method="nll")
  np.testing.assert_allclose(nats, np.asarray([6, 16, 1]) * math.log(27), rtol=1e-6)
  loss = prior.apply(variables, latent(rows), None, train=False, method="loss")["nll"]
  np.testing.assert_allclose(loss, math.log(27), rtol=1e-6)


def test_samples_are_codes_of_the_grid_and_what_does_not_fit_is_counted(model):
  drawn = model.sample_latents(number=12, seed=3)
  assert drawn.codes.shape == (12, 4, 4) and drawn.z is None
  assert drawn.codes.min() >= 0 and drawn.codes.max() < VOCAB
  x = model.sample(number=12, seed=3)
  np.testing.assert_allclose(model.decode(drawn), x, atol=1e-6)
  counted = Sampler(model.experiment, model.mesh, model.arrays, model.prior, fitted=model.fitted)
  list(counted.latents(counted.labels(None, 12), 3, None))
  labels = np.concatenate([np.arange(12) % 10, np.zeros(4)]).astype(np.int32)  # a compiled size is a power of two
  tokens = counted._draw(model.prior, labels, jax.random.fold_in(jax.random.key(3), 0), None).codes
  codes, cut, filled = model.fitted.expand(np.asarray(tokens)[:12])
  np.testing.assert_array_equal(drawn.codes, codes)
  assert counted.mended == {"codes": 12 * 16, "cut": cut.sum(), "filled": filled.sum()} and filled.sum() > 0
  told = files.draw(model, model.drawing(12), counted.labels(None, 12), 3, None, None)[1]
  assert told == f"; of 192 codes {cut.sum()} were cut and {filled.sum()} filled"


def test_a_prior_is_told_the_places_of_its_own_tokens_as_it_is_of_the_data(model):
  """The likeliest tokens, drawn one by one, are those of the logits of all at once with the places of `places`."""
  prior = model.experiment.stage2.prior.clone(temperature=0.0)
  variables = randomise(jax.eval_shape(lambda: model.prior), 0.7)
  labels = {"label": np.arange(8, dtype=np.int32)}
  options = {"shape": (LENGTH,), "walk": model.fitted.walk, "rngs": {"prior": jax.random.key(0)}}
  rows = np.asarray(prior.apply(variables, labels, method="sample", **options).codes)
  places = model.fitted.places(rows)
  assert len(np.unique(rows)) > 3 and (places != np.arange(LENGTH)).any()

  def logits(places):
    inner = {"params": variables["params"]["backbone"]}
    return np.asarray(prior.backbone.apply(inner, rows, labels, places=places))

  np.testing.assert_array_equal(logits(places).argmax(-1), rows)
  assert (logits(np.broadcast_to(np.arange(LENGTH), rows.shape)).argmax(-1) != rows).any()
  with pytest.raises(UserError, match="reads the places of merged tokens, and there are none: it needs a recode"):
    prior.apply(variables, Latent(codes=rows), labels, method="nll")


def test_a_moved_run_decodes_with_the_very_table(folder, model, tmp_path):
  shutil.copytree(folder.path, tmp_path / "moved")
  shutil.rmtree(next((tmp_path / "moved").glob("stage2-*")) / "merged")  # the cache is not needed any more
  moved = latents.load(tmp_path / "moved")
  np.testing.assert_array_equal(moved.sample(number=4, seed=5), model.sample(number=4, seed=5))


def test_another_run_takes_the_stage_with_its_table(folder, tmp_path):
  """From the store; and nothing is fitted anew."""
  shutil.copytree(folder.path.parent / ".stages", tmp_path / ".stages")
  for file in tmp_path.glob(".stages/*/*"):
    assert file.name != "merged"
  other = Folder(run.run(experiment(), tmp_path, "other", "x"), experiment())
  assert not (other.stage(2) / "merged").exists()
  mine, theirs = (artefact.read_recode(f.stage(2)) for f in (folder, other))
  assert mine.keys() == theirs.keys() and all((mine[name] == theirs[name]).all() for name in mine)


def test_a_run_that_is_stopped_goes_on_with_the_table_it_has(folder, tmp_path, monkeypatch):
  """Finished but for the artefact: nothing is encoded or fitted again, and the weights are the same."""
  shutil.copytree(folder.path, tmp_path / "micro")
  for name in (artefact.FACTS, artefact.WEIGHTS, artefact.RECODE):
    (next((tmp_path / "micro").glob("stage2-*")) / name).unlink()
  monkeypatch.setattr(merging, "_write", None)
  again = Folder(run.run(experiment(), tmp_path, None, "x"), experiment())
  assert again.artefact(2).fingerprint == folder.artefact(2).fingerprint
  assert artefact.facts_of(again.stage(2))["recode"] == artefact.facts_of(folder.stage(2))["recode"]


def test_damaged_and_foreign_tables_are_one_line(folder, tmp_path):
  shutil.copytree(folder.path, tmp_path / "run")
  place = open_folder(tmp_path / "run").stage(2)
  table = artefact.read_recode(place)
  artefact.write_arrays(place / artefact.RECODE, {**table, "fill": np.asarray(int(table["fill"]) + 1, np.int32)})
  with pytest.raises(UserError, match=r"recode\.safetensors is damaged or not this stage's"):
    latents.load(tmp_path / "run")
  foreign = {**table, "origin": np.frombuffer(b"another stage 1", np.uint8)}
  two = artefact.read(place)
  artefact.write(place, two.weights, two.facts, recode=foreign)
  with pytest.raises(UserError, match=r"recode\.safetensors is a merge table of another codebook"):
    latents.load(tmp_path / "run")
  (place / artefact.RECODE).unlink()
  with pytest.raises(UserError, match=r"recode\.safetensors cannot be read"):
    latents.load(tmp_path / "run")


def test_shapes_are_known_without_data():
  """At any size: the step, the prior and sampling are traced from the declared length."""
  made = experiment()
  program = build_step(made, 2, micro.one_device())
  assert program.batch["stored"].shape == (micro.BATCH, LENGTH) and "x" not in program.batch
  program.step.shapes(program.state, program.frozen, program.batch)
  assert abstract_prior(made)["params"]["backbone"]["head"]["kernel"].shape == (16, 27)
  rehearsal._check_sampling(made, program)


def test_the_recode_belongs_to_the_address_and_to_the_text():
  made, plain = experiment(), experiment(recode=None, prior=transformer(VOCAB, places=0))
  assert loads(dumps(made), "x") == made
  assert addresses(made)[0] == addresses(plain)[0] and addresses(made)[1] != addresses(plain)[1]
  assert "recode" not in dumps(plain)
  more = experiment(recode=ImageBPE(length=LENGTH, merges=9), prior=transformer(26))
  assert addresses(more)[1] != addresses(made)[1]


@pytest.mark.parametrize(
  ("changes", "line"),
  [
    ({"cache": False}, r"^stage2\.recode is fitted on the latent cache: set --stage2\.cache True$"),
    ({"prior": transformer(26)}, "^the prior knows 26 codes, but ImageBPE gives 27: merged tokens, and one for the en"),
    ({"prior": transformer(length=8)}, r"^the prior models 8 tokens, but stage2\.recode\.length is 16$"),
    ({"prior": micro.experiment().stage2.prior}, "^the prior knows no codes, but ImageBPE gives 27"),
    ({"recode": ImageBPE(length=0, merges=10)}, r"^stage2\.recode\.length is 0: it must be at least 1"),
    ({"recode": ImageBPE(length=16, merges=-1)}, r"^recode\.merges is -1: it must be at least 0"),
  ],
)
def test_declarations_that_cannot_run_are_one_line(changes, line):
  with pytest.raises(UserError, match=line):
    check(experiment(**changes))


def test_continuous_latents_and_several_codes_a_place_are_refused(tmp_path):
  made = experiment()
  kl = micro.experiment().stage1
  with pytest.raises(UserError, match=r"^stage2\.recode: ImageBPE merges codes, but the bottleneck is continuous"):
    check(dataclasses.replace(made, stage1=kl))
  several = made.stage1.model.clone(bottleneck=ResidualVQ(EMAVQ(vocab=16, dim=4), quantizers=2))
  one = dataclasses.replace(made.stage1, model=several)
  with pytest.raises(UserError, match=r"a recode merges one code a place, but .* codes of \(4, 4, 2\) for z of \(4, 4"):
    run.run(dataclasses.replace(made, stage1=one), tmp_path, None, "x")
  assert not list(tmp_path.iterdir())


def test_examples_longer_than_the_length_are_said_before_the_training(tmp_path):
  short = experiment(recode=ImageBPE(length=2, merges=10), prior=transformer(length=2))
  with pytest.raises(UserError, match=r"examples take more than 2 merged tokens, one of them .*\(16 always suffice\)"):
    run.run(short, tmp_path, None, "x")
  assert not list((tmp_path / "micro").glob("stage2-*/checkpoints"))


def test_a_fitted_recode_gives_what_the_capacity_counts(model):
  """The unigram entropy before merging is that of the score card's codes."""
  codes = held_out_codes(model)
  rows = model.fitted.merge(codes)
  metric = CodeCapacity()
  layout = Layout((16, 16, 1), Latent(codes=jax.ShapeDtypeStruct((4, 4), np.int32)), (VOCAB,))
  held = Held(np.zeros((20, 1)), np.ones(20, bool))
  acc = metric.update(metric.init(layout), Latent(codes=codes), held)
  bits = metric.result(acc, layout)["entropy_bits"]
  assert model.fitted.shortening(codes, rows)["unigram_bits_before"] == pytest.approx(bits, rel=1e-5)
