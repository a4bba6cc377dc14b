"""Samples beside their nearest training examples, and which reconstructions are shown."""

import dataclasses

import numpy as np
import pytest

from latents.data import Audio, choice, evaluation_batches
from latents.errors import UserError
from latents.evaluate import Signals, nearest_distances
from latents.media.drawing import captioned
from latents.report import report
from latents.runs import run
from latents.types import to_signal, to_uint8
from latents.use import neighbours
from tests import micro


@pytest.fixture(scope="module")
def finished(tmp_path_factory):
  made = micro.experiment(gan=False)
  evaluation = dataclasses.replace(made.evaluation, images=400)  # more than the 297 there are
  return run.run(dataclasses.replace(made, evaluation=evaluation), tmp_path_factory.mktemp("runs"), None, "a test")


def examples(split):
  with evaluation_batches(micro.experiment().stage1.data, split=split, batch=500) as found:
    batches = list(found)
  return np.concatenate([batch["x"][batch["mask"]] for batch in batches])


def test_each_sample_stands_beside_the_training_example_that_is_nearest(finished):
  kept, train = np.load(finished / "neighbours.npz"), examples("train")
  samples = np.load(finished / "samples.npz")["x"]
  np.testing.assert_array_equal(kept["x"], samples[:20])  # all that were drawn
  signal = lambda x: np.asarray(to_signal(x), np.float64)
  np.testing.assert_allclose(kept["distance"], nearest_distances(signal(kept["x"]), signal(train)), rtol=1e-5)
  for x, nearest, distance in zip(kept["x"], kept["nearest"], kept["distance"], strict=True):
    squares = ((signal(train) - signal(x)) ** 2).mean((1, 2, 3))
    assert np.sqrt(((signal(nearest) - signal(x)) ** 2).mean()) == pytest.approx(float(distance), rel=1e-5)
    assert np.sqrt(squares.min()) == pytest.approx(float(distance), rel=1e-5)
  assert str(kept["note"]) == "RMS distance of pixels, among 1500 training examples"


def test_the_report_and_tensorboard_show_them(finished):
  page = report([finished])
  assert "Nearest training examples" in page and "RMS distance of pixels, among 1500 training examples" in page
  assert page.count("Nearest to sample") == 20 and page.count("<figcaption>0.") >= 20
  assert (finished / "neighbours.png").stat().st_size > 0
  events = b"".join(path.read_bytes() for path in (finished / "tensorboard" / "scores").glob("events*"))
  assert b"neighbours" in events


def test_what_does_not_fit_together_is_one_line(finished, tmp_path):
  kept = dict(np.load(finished / "neighbours.npz"))
  np.savez(tmp_path / "neighbours.npz", **{**kept, "nearest": kept["nearest"][:, :8]})
  with pytest.raises(UserError, match=r"'nearest' is .* unlike the samples"):
    report([tmp_path])


def test_a_copy_is_found_and_mels_are_what_sound_is_compared_by(tmp_path):
  made, train = micro.experiment(), examples("train")
  view = lambda x: np.asarray(to_signal(x))
  neighbours.keep(made, tmp_path, train[[1400, 7]], Signals(), view)
  kept = np.load(tmp_path / "neighbours.npz")
  np.testing.assert_array_equal(kept["nearest"], train[[1400, 7]])
  np.testing.assert_allclose(kept["distance"], 0, atol=1e-6)
  sound = Audio(path="nowhere", rate=8000)
  heard = dataclasses.replace(made, stage2=dataclasses.replace(made.stage2, data=sound))
  assert neighbours.features(heard, []) == Signals("audio", 8000)
  assert neighbours.features(heard, []).note == "log mel energies"


def test_sound_and_clips_are_pairs_of_pictures(tmp_path):
  rng = np.random.default_rng(0)
  for name, x in (
    ("sound", rng.uniform(-1, 1, (3, 4000, 1)).astype(np.float32)),
    ("clips", rng.integers(0, 256, (3, 5, 16, 16, 3)).astype(np.uint8)),
  ):
    (tmp_path / name).mkdir()
    beside = {"rate": np.asarray(8000)} if name == "sound" else {}
    np.savez(tmp_path / name / "neighbours.npz", x=x, nearest=x[::-1], distance=np.arange(3.0), **beside)
    assert report([tmp_path / name]).count("Nearest to sample") == 3


def test_the_reconstructions_that_are_shown_are_a_choice_over_the_whole_split(finished):
  kept, held = np.load(finished / "reconstructions.npz"), examples("test")
  np.testing.assert_array_equal(kept["x"], to_uint8(to_signal(held[choice(297, 24)])))
  assert kept["x"].shape == kept["reconstruction"].shape and len(kept["pca"]) == 24


def test_a_caption_takes_the_lines_that_it_needs():
  picture = np.zeros((20, 100, 3), np.uint8)
  one, two = captioned(picture, "short"), captioned(picture, "a text that is longer than one line")
  assert one.shape == (38, 100, 3) and two.shape[0] > one.shape[0]
  assert (one[20:] == 0).any() and (one[:20] == 0).all()
