"""The score card: what it always said stays, the prior's held-out loss is exact, named metrics find their place."""

import dataclasses
import json
import math
import tarfile
from typing import Any

import jax
import numpy as np
import pytest

from latents.data import Folder as Pictures
from latents.declare import Evaluation, addresses, check, dumps, loads
from latents.errors import UserError
from latents.evaluate import (
  PSNR,
  SSIM,
  ClassAgreement,
  CodeCapacity,
  Energy,
  Frechet,
  Kurtosis,
  LPIPSMetric,
  PrecisionRecall,
  Signals,
  Spectrum,
)  # fmt: skip
from latents.nn.streams import streams
from latents.priors.base import LEVELS
from latents.runs import run
from latents.train import log
from latents.train.build_step import abstract_autoencoder, abstract_prior
from latents.types import to_signal
from latents.use import held_out, measures, prior_loss, score
from latents.use.model import Model
from tests import micro
from tests.test_folder import paint
from tests.test_former_runs import FIXTURE


def random(tree: Any) -> Any:
  """Weights of a normal distribution for a tree of shapes."""
  rng = np.random.default_rng(0)
  draw = lambda a: (0.2 * rng.normal(size=a.shape)).astype(a.dtype)
  return jax.tree.map(draw, tree)


def model(batch: int = 20, **changes: Any) -> Model:
  made = micro.experiment(gan=False, evaluation=Evaluation(images=20, batch=batch, features=False), **changes)
  arrays = random(abstract_autoencoder(made))
  arrays["std"] = np.ones_like(arrays["std"])
  return Model(made, micro.one_device(), arrays, random(abstract_prior(made)), "")


def test_the_score_card_of_a_former_run_stays_what_it_was(tmp_path, monkeypatch):
  # it was measured on the first 20 examples, as versions before 2026-12 did
  monkeypatch.setattr("latents.data.loader.choice", lambda count, number: np.arange(min(count, number)))
  with tarfile.open(FIXTURE) as packed:
    packed.extractall(tmp_path, filter="data")
  folder = tmp_path / "finished"
  before = json.loads((folder / "scores.json").read_text())
  found = run.evaluate(folder, {}, "latents evaluate")
  assert [k for k in found if k not in ("prior", "left_out", "judges")] == list(before) and not found["left_out"]
  log = [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]
  felt = [line for line in log if line["stage"] == 1 and line.get("train/gan_gate", 0) > 0]
  assert found["judges"]["gan"]["lines"] == len(felt) > 0
  assert 0 < found["time"].pop("sample_s") < 10  # of a single chunk it was not known
  for part in ("parameters", "latent", "reconstruction", "data", "samples", "protocol", "time", "command", "paper"):
    flat = {jax.tree_util.keystr(k): v for k, v in jax.tree_util.tree_leaves_with_path(before[part])}
    now = {jax.tree_util.keystr(k): v for k, v in jax.tree_util.tree_leaves_with_path(found[part])}
    assert now.keys() == flat.keys(), part
    for name, value in flat.items():
      assert now[name] == (pytest.approx(value, rel=1e-3) if isinstance(value, float) else value), name
  assert (
    set(found["prior"]) == {"flow", "images", *(f"data_error_at_{level}" for level in LEVELS)}
    and 0.5 < found["prior"]["flow"] < 2
  )
  assert "Held-out loss" in (folder / "report.html").read_text()


def test_the_held_out_loss_of_a_flow_is_the_mean_over_examples_whatever_the_batch():
  whole, parts = (prior_loss.measure(model(batch)) for batch in (20, 8))  # 8: the last batch is half padding
  assert whole["images"] == parts["images"] == 20
  assert parts["flow"] == pytest.approx(whole["flow"], rel=1e-5)
  made = model()
  (x, mask), *_ = held_out.signals(made.experiment)
  labels = next(held_out.rows(made.experiment))["label"]
  latent, prior, values = made.encode(x), made.experiment.stage2.prior, []
  loss = jax.jit(lambda z, y, key: prior.apply(made.prior, z, y, train=False, method="loss", rngs=streams(key))["flow"])
  for i in range(20):
    one = jax.tree.map(lambda a, i=i: a[i : i + 1], latent)
    values.append(float(loss(one, {"label": labels[i : i + 1]}, jax.random.fold_in(jax.random.key(prior_loss.KEY), i))))
  assert mask.all() and np.std(values) > 0.01
  assert whole["flow"] == pytest.approx(np.mean(values), rel=1e-5)


def test_a_likelihood_is_told_in_nats_and_bits():
  made = model(8, codes=True)
  found = prior_loss.measure(made)
  rows = list(held_out.rows(made.experiment))
  x, y = (np.concatenate([np.asarray(b[k])[b["mask"]] for b in rows]) for k in ("x", "label"))
  prior, latent = made.experiment.stage2.prior, made.encode(np.asarray(to_signal(x)))
  nll = prior.apply(made.prior, latent, {"label": y}, method="nll")
  assert nll.shape == (20,)
  loss = prior.apply(made.prior, latent, {"label": y}, train=False, method="loss")["nll"]
  assert float(nll.mean()) == pytest.approx(16 * float(loss), rel=1e-5)  # 4 x 4 codes
  expected = {
    "nll": float(loss),
    "nats_per_element": float(loss),
    "bits_per_element": float(loss) / math.log(2),
    "bits_per_example": 16 * float(loss) / math.log(2),
    "bits_per_dim": 16 * float(loss) / math.log(2) / 256,  # of 16 x 16 pixels
    "images": 20,
  }
  assert {name: found[name] for name in expected} == pytest.approx(expected, rel=1e-5)


def chosen(metrics: tuple = (), **changes: Any) -> dict[str, list]:
  made = micro.experiment(evaluation=Evaluation(features=False, metrics=metrics), **changes)
  arrays = abstract_autoencoder(made)
  return measures.chosen(made, measures.layout(made, arrays | {"std": np.ones(arrays["std"].shape)}))


def test_named_metrics_stand_beside_the_usual_ones_or_in_place_of_their_class():
  usual = chosen()
  assert usual["reconstructions"] == [PSNR(), SSIM(), Energy()] and usual["samples"] == []
  assert [type(m).__name__ for m in usual["latents"]] == ["GaussianCapacity"]
  assert [type(m).__name__ for m in chosen(codes=True)["latents"]] == ["CodeCapacity"]
  named = chosen((Energy(cutoff=0.1), Spectrum(), ClassAgreement()))
  assert named["reconstructions"] == [PSNR(), SSIM(), Energy(cutoff=0.1)]
  assert named["latents"] == [*usual["latents"], Spectrum()] and named["samples"] == [ClassAgreement()]


def test_metrics_that_do_not_fit_are_refused_before_anything_is_trained():
  for metrics, words in (
    ((CodeCapacity(),), "CodeCapacity is not defined for latents of"),
    ((Energy(0.1), Energy(0.2)), "two metrics give the score 'high_frequency_kept'"),
    ((ClassAgreement(), ClassAgreement()), "two metrics give the score"),
  ):
    with pytest.raises(UserError, match=words):
      chosen(metrics)
  with pytest.raises(UserError, match="nowhere"):
    made = micro.experiment(evaluation=Evaluation(features=False, metrics=(LPIPSMetric(path="/nowhere.npz"),)))
    score.load_metrics(made)


def test_metrics_are_stored_and_stand_in_no_address():
  plain = micro.experiment()
  named = dataclasses.replace(
    plain, evaluation=dataclasses.replace(plain.evaluation, metrics=(Kurtosis(), ClassAgreement(), Spectrum(0.2)))
  )
  assert loads(dumps(named), "memory") == named and addresses(named) == addresses(plain)
  assert '"metrics"' not in dumps(plain)
  spoilt = dumps(named).replace("latents.evaluate.latent.kurtosis:Kurtosis", "latents.optim:Adam")
  with pytest.raises(UserError, match="metrics holds Adam, which is no metric"):
    check(loads(spoilt, "memory"))


def test_an_evaluation_that_fails_changes_nothing(tmp_path, monkeypatch):
  with tarfile.open(FIXTURE) as packed:
    packed.extractall(tmp_path, filter="data")
  folder = tmp_path / "finished"
  before = {p.name: p.read_bytes() for p in folder.iterdir() if p.is_file()}
  with pytest.raises(UserError, match=r"none\.npz"):
    run.evaluate(folder, {"lpips": "none.npz"}, "latents evaluate")
  assert {p.name: p.read_bytes() for p in folder.iterdir() if p.is_file()} == before
  monkeypatch.chdir(tmp_path)
  made = micro.experiment(evaluation=Evaluation(lpips="w.npz"))
  assert run._placed(made).evaluation.lpips == str(tmp_path / "w.npz")  # found from every folder


def test_of_a_small_set_what_it_cannot_give_is_left_out_and_the_rest_is_marked(tmp_path):
  """Three held-out pictures: precision needs more, the distance between means and covariances says what it is of."""
  made = micro.experiment(gan=False)
  data = Pictures(str(paint(tmp_path / "pictures")), size=16, channels=1)
  seen = Signals("image")
  stages = {
    name: dataclasses.replace(getattr(made, name), data=data, steps=1, batch=2) for name in ("stage1", "stage2")
  }
  prior = made.stage2.prior
  prior = prior.clone(backbone=prior.backbone.clone(classes=0), guidance=1.0)
  stages["stage2"] = dataclasses.replace(stages["stage2"], prior=prior)
  metrics = (PrecisionRecall(seen), Frechet(seen))
  evaluation = dataclasses.replace(made.evaluation, metrics=metrics, samples=3)
  folder = run.run(dataclasses.replace(made, **stages, evaluation=evaluation), tmp_path / "runs", None, "test")
  scores = json.loads((folder / "scores.json").read_text())
  assert scores["left_out"] == {"PrecisionRecall": "precision and recall with k=3 need more than 3 samples a side"}
  (name,) = [name for name in scores["samples"] if name.startswith("frechet")]
  assert "too few to rely on" in scores["protocol"][name]
  assert "Left out: PrecisionRecall" in (folder / "report.html").read_text()
  (board,) = (folder / "tensorboard" / "scores").iterdir()  # pictures and scores beside the curves
  for tag in ("samples", "reconstructions", "scores/reconstruction/psnr", "scores/prior/flow"):
    assert f"\n{chr(len(tag))}{tag}".encode() in board.read_bytes()
  lines = log.read(folder / "metrics.jsonl")
  wanted = [float(made.stage1.optimizer.rate(1)(0)), float(made.stage2.optimizer.rate(1)(0))]
  assert [line["train/lr"] for line in lines] == wanted
