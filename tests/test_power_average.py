"""Power averages, and averages of other widths made of them afterwards (EDM2's post-hoc EMA)."""

import dataclasses

import numpy as np
import pytest

from latents.declare import check
from latents.errors import UserError
from latents.main import main
from latents.optim import PowerAverage, average, combination, gamma_of, is_width, width
from latents.runs import averages, training
from latents.store import artefact
from latents.store.folder import Folder, open_folder
from tests import micro


@pytest.mark.parametrize(("wide", "gamma"), [(0.05, 16.97), (0.10, 6.937)])
def test_widths_are_the_papers(wide: float, gamma: float):
  assert gamma_of(wide) == pytest.approx(gamma, rel=2e-3)


def test_width_and_gamma_come_back():
  for wide in np.linspace(0.01, 0.28, 28):
    assert abs(width(gamma_of(wide)) - wide) < 1e-10
  for gamma in (0.1, 1.0, 6.94, 100.0):
    assert abs(gamma_of(width(gamma)) - gamma) < 1e-10 * (1 + gamma)
  assert is_width("0.07") and not any(map(is_width, ("slow", "", "0", "0.070", "0.3", "nan")))
  for wrong in (0.0, 0.29, float("nan")):
    with pytest.raises(UserError, match="the width of an average"):
      gamma_of(wrong)


def follow(weights: np.ndarray, gamma: float) -> np.ndarray:
  """[T,n] weights after each update -> [T,n] the power average after each, as training keeps it."""
  now, out = np.zeros(weights.shape[1]), []
  for step, value in enumerate(weights):
    keep = (1 - 1 / (step + 1)) ** (gamma + 1)
    now = keep * now + (1 - keep) * value
    out.append(now)
  return np.stack(out)


def test_a_profile_is_what_the_average_gives_each_update():
  """Update i of t weighs (i/t)^(gamma+1) - ((i-1)/t)^(gamma+1); mean and deviation of that are the paper's width."""
  count, gamma = 400, gamma_of(0.1)
  shares = follow(np.eye(count), gamma)[-1]
  edges = (np.arange(count + 1) / count) ** (gamma + 1)
  assert np.abs(shares - np.diff(edges)).max() < 1e-12
  place = (np.arange(count) + 0.5) / count
  mean = (shares * place).sum()
  assert np.sqrt((shares * (place - mean) ** 2).sum()) == pytest.approx(0.1, rel=1e-3)
  assert float(PowerAverage(gamma=gamma).keep(np.asarray(7))) == pytest.approx((7 / 8) ** (gamma + 1), rel=1e-5)


def test_products_are_integrals():
  t = (np.arange(200_000) + 0.5) / 200_000 * 8
  profile = lambda end, gamma: np.where(t <= end, (gamma + 1) * t**gamma / end ** (gamma + 1), 0)
  some = [(8, 6.94), (5, 16.97), (3, 2.0)]
  found = average.products(some, some)
  for i, a in enumerate(some):
    for j, b in enumerate(some):
      assert found[i, j] == pytest.approx((profile(*a) * profile(*b)).mean() * 8, rel=1e-4)


def test_what_was_kept_is_found_again_and_a_plain_mean_of_nothing_else():
  kept = [(t, g) for t in (250.0, 500.0, 750.0, 1000.0) for g in (gamma_of(0.05), gamma_of(0.1))]
  for i in (0, 3, 7):
    assert np.abs(combination(kept, kept[i]) - np.eye(8)[i]).max() < 1e-6


@pytest.mark.parametrize("wanted", [0.07, 0.085, 0.12])
def test_a_third_width_is_made_of_two_on_synthetic_weights(wanted: float):
  """A drift to a goal, and a walk at random around it: 8 snapshots of two widths."""
  rng, count = np.random.default_rng(0), 2000
  drift = np.linspace(0, 1, count)[:, None] * rng.normal(size=50)
  weights = 1 + drift + 0.02 * np.cumsum(rng.normal(size=(count, 50)), 0) / np.sqrt(count)
  gammas = gamma_of(0.05), gamma_of(0.1)
  tracked = [follow(weights, gamma) for gamma in gammas]
  steps = range(count // 8, count + 1, count // 8)
  shares = combination([(s, g) for s in steps for g in gammas], (count, gamma_of(wanted)))
  made = shares @ np.stack([one[s - 1] for s in steps for one in tracked])
  true = follow(weights, gamma_of(wanted))[-1]
  assert abs(shares.sum() - 1) < 1e-9
  assert np.linalg.norm(made - true) < 2e-4 * np.linalg.norm(true)
  assert np.linalg.norm(made - true) < 0.01 * np.linalg.norm(tracked[1][-1] - true)


@pytest.fixture(scope="module")
def finished(tmp_path_factory):
  """A stage 1 of 32 steps with a checkpoint every 4, which tracked three widths."""
  base = micro.experiment(gan=False)
  tracked = {n: PowerAverage(gamma=gamma_of(w)) for n, w in {"narrow": 0.05, "wide": 0.1, "third": 0.07}.items()}
  one = dataclasses.replace(base.stage1, steps=32, save_every=4, keep_checkpoints=True, averages=tracked)
  path = tmp_path_factory.mktemp("runs") / "a"
  folder = Folder(path, dataclasses.replace(base, stage1=one, stage2=None))
  path.mkdir()
  folder.write_declaration()
  training.bring(folder, 1, micro.one_device())
  return folder


def test_a_third_width_is_made_of_a_runs_checkpoints(finished, capsys):
  """From the two others alone it is the third that was tracked; the run is sampled with it from then on."""
  place = finished.stage(1)
  assert len(list((place / "checkpoints").glob("[0-9]*"))) == 8
  before = finished.artefact(1)
  third = artefact.with_average(before, place, "third").weights
  powers = {"narrow": gamma_of(0.05), "wide": gamma_of(0.1)}
  found, kept = averages._combined(place, powers, (32, gamma_of(0.07)), finished.path)
  assert kept == 16 and found.keys() == third.keys()
  moved = np.sqrt(sum(np.square(third[n] - before.weights[n]).sum() for n in third))
  missed = np.sqrt(sum(np.square(third[n] - found[n]).sum() for n in third))
  whole = np.sqrt(sum(np.square(third[n]).sum() for n in third))
  assert missed < 1e-3 * whole and missed < 0.1 * moved
  assert main(["average", str(finished.path), "--width", "0.07"]) == 0
  assert "width 0.07 of 24 snapshots of width 0.05, 0.1, 0.07" in capsys.readouterr().out
  again = open_folder(finished.path)
  assert again.experiment.evaluation.average == "0.07" and again.artefact(1).fingerprint == before.fingerprint
  after = again.artefact(1)
  made = artefact.with_average(after, place, "0.07").weights
  assert max(np.abs(made[n] - third[n]).max() for n in third) < 1e-5  # of three, one of which it is
  assert set(artefact.with_average(after, place, "narrow").weights) == set(third)
  check(again.experiment)


def test_mistakes_are_one_clear_line(finished, tmp_path):
  base = micro.experiment(gan=False)
  path = tmp_path / "b"
  for stage, words in ((base.stage1, "keeps no power average"), (finished.experiment.stage1, "has no checkpoints")):
    folder = Folder(path, dataclasses.replace(base, stage1=stage, stage2=None))
    path.mkdir(exist_ok=True)
    folder.write_declaration()
    with pytest.raises(UserError, match=words):
      averages.make(path, 0.07)
  with pytest.raises(UserError, match="must be above 0 and below"):
    averages.make(finished.path, 0.5)
  evaluation = dataclasses.replace(base.evaluation, average="fast")
  with pytest.raises(UserError, match="which no stage keeps"):
    check(dataclasses.replace(base, evaluation=evaluation))
