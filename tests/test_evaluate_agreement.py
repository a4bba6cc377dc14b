"""The judge of samples: class agreement, distances to neighbours, sound as bands of energy."""

import numpy as np
import pytest

from latents.evaluate import ClassAgreement, Examples, agreement, nearest_distances, novelty
from latents.media.log_mel import FLOOR, log_mel, mel_bands


def clouds(seed: int, n: int, classes: int = 3) -> tuple[np.ndarray, np.ndarray]:
  """Three tight, far clouds [n,2,2,1] in [-1,1] and their labels."""
  rng = np.random.default_rng(seed)
  label = np.arange(n) % classes
  return 0.8 * (label[:, None, None, None] - 1) + 0.02 * rng.standard_normal((n, 2, 2, 1)), label


def test_agreement_is_the_share_of_samples_in_the_class_that_was_asked_for():
  x, label = clouds(2, 30)
  asked = label.copy()
  asked[:6] = (asked[:6] + 1) % 3  # six of thirty were asked to be something else
  measured = agreement(clouds(0, 60), clouds(1, 21), (x, asked), on="pixels")
  assert measured["class_agreement"].value == pytest.approx(24 / 30)
  assert measured["classifier_accuracy"].value == 1.0
  assert "60 real" in measured["class_agreement"].protocol and "n=30" in measured["class_agreement"].protocol
  assert "on pixels" in measured["classifier_accuracy"].protocol and "n=21" in measured["classifier_accuracy"].protocol


def test_a_classifier_that_knows_nothing_is_seen_in_its_own_accuracy():
  x, label = clouds(0, 60)
  shuffled = np.random.default_rng(5).permutation(label)
  assert agreement((x, shuffled), clouds(1, 60), clouds(2, 9), on="x")["classifier_accuracy"].value < 0.7


def test_nearest_distances_are_those_of_a_loop():
  rng = np.random.default_rng(0)
  a, b = rng.uniform(-1, 1, (300, 3, 2, 1)), rng.uniform(-1, 1, (41, 3, 2, 1))  # more than one block of 256
  rms = lambda u, v: np.sqrt(np.mean((u - v) ** 2))
  np.testing.assert_allclose(nearest_distances(a, b), [min(rms(u, v) for v in b) for u in a], rtol=1e-6)
  others = [min(rms(u, v) for j, v in enumerate(a) if j != i) for i, u in enumerate(a)]
  np.testing.assert_allclose(nearest_distances(a), others, rtol=1e-6)


def test_copies_and_collapse_are_seen():
  rng = np.random.default_rng(0)
  train, test = rng.uniform(-1, 1, (50, 8)), rng.uniform(-1, 1, (20, 8))
  copies = novelty(train, test, train[:30], on="numbers")
  assert copies["sample_to_train"].value < 1e-6 < 0.1 < copies["heldout_to_train"].value
  collapsed = novelty(train, test, np.repeat(rng.uniform(-1, 1, (1, 8)), 30, 0), on="numbers")
  assert collapsed["sample_to_sample"].value < 1e-6 < 0.1 < collapsed["heldout_to_heldout"].value
  assert "n=20" in copies["sample_to_train"].protocol  # equal numbers of samples and of held-out examples
  fresh = novelty(train, test, test, on="numbers")
  assert fresh["sample_to_train"].value == fresh["heldout_to_train"].value > 0


def test_distances_of_unequal_sets_are_those_of_a_choice_over_the_whole():
  test = np.arange(100.0)[:, None]  # sorted: the first ten lie beside each other
  found = novelty(np.zeros((1, 1)), test, test[:10], on="numbers")
  assert found["heldout_to_train"].value > 20 > 10 > found["sample_to_train"].value
  assert "n=10 a side (of 10 and 100)" in found["heldout_to_train"].protocol


def test_one_label_alone_makes_no_classifier():
  x, label = clouds(0, 30)
  one, three = Examples(x, np.zeros(30, np.int32)), Examples(x, label)
  with pytest.warns(UserWarning, match="class agreement is left out: all training examples have one label"):
    assert ClassAgreement().compare(three, three, one) == {}


def test_a_sine_on_a_bin_has_power_1_in_the_bands_that_hold_it():
  rate, t = 8_000, np.arange(4_000) / 8_000
  bands = mel_bands(rate, 256, 32)
  frequency = 32 * rate / 256
  heard = np.exp(log_mel(np.sin(2 * np.pi * frequency * t)[None, :, None], rate)) - FLOOR
  assert heard.shape == (1, (4_000 - 256) // 128 + 1, 32)
  # Hann spreads the amplitude over three bins: 1/2, 1, 1/2
  np.testing.assert_allclose(heard[0], np.tile(bands[:, 31:34] @ [0.25, 1, 0.25], (len(heard[0]), 1)), atol=1e-9)


def test_bands_of_energy_forget_the_phase_and_know_silence():
  t = np.arange(2_048)[None, :, None] / 8_000
  one, other = (np.cos(2 * np.pi * 500 * t + phase) for phase in (0.0, 2.0))
  assert np.abs(one - other).max() > 1
  np.testing.assert_allclose(log_mel(one, 8_000), log_mel(other, 8_000), atol=0.02)
  np.testing.assert_allclose(log_mel(np.zeros((2, 300, 1)), 8_000), np.log(FLOOR))
  assert log_mel(np.zeros((1, 10, 1)), 8_000).shape == (1, 1, 32)  # shorter than a window
  stereo = np.concatenate([one, -one], -1)
  np.testing.assert_allclose(log_mel(stereo, 8_000), np.log(FLOOR))


@pytest.mark.parametrize(("rate", "window"), [(8_000, 256), (44_100, 1411)])
def test_triangles_overlap_to_one_between_the_outer_centres(rate: int, window: int):
  bands = mel_bands(rate, window, 32)
  peak = np.arange(bands.shape[1]) * rate / window
  total, reached = bands.sum(0), bands.argmax(1)
  assert (bands >= 0).all() and (np.diff(reached) >= 0).all() and (bands.sum(1) > 0).all()
  inside = (peak > peak[reached[0]] + rate / window) & (peak < peak[reached[-1]] - 2 * rate / window)
  np.testing.assert_allclose(total[inside], 1, atol=1e-12)
