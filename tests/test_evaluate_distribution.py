"""Distances between distributions against closed forms and brute force."""

import json

import jax.numpy as jnp
import numpy as np
import pytest

from latents.errors import UserError
from latents.evaluate import (
  EfficientNetFeatures,
  Examples,
  Frechet,
  KernelDistance,
  Moments,
  PrecisionRecall,
  Signals,
  collect,
  frechet,
  kernel_distance,
  mmd2,
  precision_recall,
)
from tests.members.evaluate import SAMPLE_METRICS

RNG = np.random.default_rng(0)


def test_frechet_of_commuting_covariances_is_closed():
  basis, _ = np.linalg.qr(RNG.normal(size=(5, 5)))
  a, b, gap = RNG.uniform(0.1, 3, 5), RNG.uniform(0.1, 3, 5), RNG.normal(size=5)

  def moments(mean, eigenvalues, n=100):
    return Moments(n, mean, (basis * eigenvalues) @ basis.T * (n - 1))

  expected = gap @ gap + ((np.sqrt(a) - np.sqrt(b)) ** 2).sum()
  assert frechet(moments(np.zeros(5), a), moments(gap, b)) == pytest.approx(expected, abs=1e-10)
  assert frechet(moments(gap, a), moments(gap, a)) == pytest.approx(0, abs=1e-10)
  singular = moments(np.zeros(5), np.array([1.0, 0, 0, 0, 0]))
  assert frechet(singular, moments(np.zeros(5), np.ones(5))) == pytest.approx(4, abs=1e-7)


def test_frechet_of_any_covariances_is_the_matrix_root():
  x, y = RNG.normal(size=(40, 6)) @ RNG.normal(size=(6, 6)), RNG.normal(size=(50, 6)) + 1
  values = np.linalg.eigvals(np.cov(x.T) @ np.cov(y.T))
  gap = x.mean(0) - y.mean(0)
  expected = gap @ gap + np.trace(np.cov(x.T)) + np.trace(np.cov(y.T)) - 2 * np.sqrt(values.real).sum()
  assert frechet(Moments.of(x), Moments.of(y)) == pytest.approx(expected, rel=1e-10)
  assert frechet(Moments.of(y), Moments.of(x)) == pytest.approx(expected, rel=1e-10)


def test_fewer_samples_than_features_are_no_trouble():
  x, y = RNG.normal(size=(5, 20)), RNG.normal(size=(7, 20))
  assert frechet(Moments.of(x), Moments.of(y)) > 0
  assert frechet(Moments.of(x), Moments.of(x)) == pytest.approx(0, abs=1e-6)
  with pytest.raises(UserError, match="at least 2"):
    frechet(Moments.of(x[:1]), Moments.of(y))


def test_moments_of_shards_add_up_despite_a_large_offset():
  x = RNG.normal(size=(101, 4)) + 1e6
  parts = [Moments.of(part) for part in (x[:7], x[7:50], x[50:])]
  both, whole = parts[0] + parts[1] + parts[2], Moments.of(x)
  assert both.n == 101
  np.testing.assert_allclose(both.mean, whole.mean, rtol=1e-14)
  np.testing.assert_allclose(both.covariance(), np.cov(x.T), atol=1e-8)


def test_mmd_is_the_double_sum():
  x, y = RNG.normal(size=(5, 3)), RNG.normal(size=(4, 3)) + 1

  def k(a, b):
    return (a @ b / 3 + 1) ** 3

  within = np.mean([k(a, b) for i, a in enumerate(x) for j, b in enumerate(x) if i != j])
  within += np.mean([k(a, b) for i, a in enumerate(y) for j, b in enumerate(y) if i != j])
  expected = within - 2 * np.mean([k(a, b) for a in x for b in y])
  assert mmd2(x, y) == pytest.approx(expected, abs=1e-12)
  assert kernel_distance(x, y) == (pytest.approx(expected, abs=1e-12), 0.0)


def test_kernel_distance_has_no_bias_and_sees_a_shift():
  x, y = RNG.normal(size=(2000, 8)), RNG.normal(size=(2000, 8))
  mean, deviation = kernel_distance(x, y, subsets=60, size=200)
  assert abs(mean) < 4 * deviation / np.sqrt(60) + 0.02
  shifted, _ = kernel_distance(x, y + 0.5, subsets=60, size=200)
  assert shifted > 10 * abs(mean)
  assert kernel_distance(x, y, subsets=3, size=50) == kernel_distance(x, y, subsets=3, size=50)
  with pytest.raises(UserError, match="at least 2"):
    kernel_distance(x[:1], y)


def test_precision_recall_is_brute_force():
  real, fake = RNG.normal(size=(30, 2)), 0.5 * RNG.normal(size=(25, 2)) + 0.7

  def share(points, centres):
    gaps = np.linalg.norm(centres[:, None] - centres[None], axis=-1)
    radii = np.sort(gaps, 1)[:, 3]
    return np.mean([(np.linalg.norm(centres - p, axis=1) <= radii).any() for p in points])

  assert precision_recall(real, fake) == (share(fake, real), share(real, fake))
  assert precision_recall(real, real) == (1.0, 1.0)
  assert precision_recall(real, fake + 100) == (0.0, 0.0)
  narrow = real.mean(0) + 0.01 * RNG.normal(size=(30, 2))
  precision, recall = precision_recall(real, narrow)
  assert precision > recall
  with pytest.raises(UserError, match="more than 3"):
    precision_recall(real[:3], fake)


def test_values_carry_their_protocol_and_never_the_name_fid():
  real, fake = Examples(RNG.normal(size=(31, 3)), name="photos test"), Examples(RNG.normal(size=(30, 3)))
  values = {
    k: v for make in (Frechet, KernelDistance, PrecisionRecall) for k, v in make().compare(real, fake, None).items()
  }
  names = ("frechet", "kernel", "kernel_std", "precision", "recall")
  assert set(values) == {f"{name}_efficientnet_lite0" for name in names}
  assert {v.protocol for v in values.values()} == {
    f"efficientnet_lite0, bilinear up to 64 px, {sizes}, against photos test"
    for sizes in ("n=30 a side (of 30 and 31)", "n=30 and 31")  # the kernel distance has no bias, so it takes all
  }
  json.dumps(values)
  plain = Frechet(Signals()).compare(real, fake, None)["frechet"]
  assert plain == (
    values["frechet_efficientnet_lite0"].value,
    "pixels, n=30 a side (of 30 and 31), against photos test",
  )


def sorted_by_class(n):
  """Six far clouds, one after the other."""
  label = np.arange(n) * 6 // n
  return Examples(np.eye(6)[label] * 8 + RNG.normal(size=(n, 6)), label.astype(np.int32), "photos test")


@pytest.mark.parametrize("metric", [Frechet(Signals()), PrecisionRecall(Signals())], ids=lambda m: type(m).__name__)
def test_sets_of_unequal_size_are_cut_to_the_smaller_by_a_choice_over_the_whole(metric):
  many, few = sorted_by_class(300), sorted_by_class(60)
  assert len(np.unique(many.some(60).label)) == 6  # the first 60 are of two classes
  for real, fake, sizes in ((many, few, "60 and 300"), (few, many, "300 and 60")):
    found = metric.compare(real, fake, None)
    assert found == {
      name: (value, f"pixels, n=60 a side (of {sizes}), against photos test")
      for name, (value, _) in metric.compare(real.some(60), fake.some(60), None).items()
    }
  assert "n=60, against" in next(iter(metric.compare(few, many.some(60), None).values())).protocol


def test_the_cut_of_a_set_keeps_labels_beside_their_examples():
  whole = sorted_by_class(300)
  part, again = whole.some(50), whole.some(50)
  np.testing.assert_array_equal(part.x, again.x)
  np.testing.assert_array_equal(part.label, np.round(part.x / 8).argmax(1))
  np.testing.assert_array_equal(whole.some(20).x, part.x[:20])
  np.testing.assert_array_equal(whole.some(300).x, whole.x)


@pytest.mark.parametrize("make", [m for _, m in SAMPLE_METRICS], ids=[n for n, _ in SAMPLE_METRICS])
def test_the_order_of_examples_does_not_matter(make):
  """Features of real and fake in any order, labels with them: the same numbers, and no names but the metric's."""
  metric = make()
  sides = [Examples(RNG.normal(size=(n, 4, 3)), np.arange(n) % 3, "real") for n in (24, 24, 40)]
  one = metric.compare(*sides)
  turn = [RNG.permutation(len(side.x)) for side in sides]
  other = metric.compare(*[Examples(s.x[i], s.label[i], s.name) for s, i in zip(sides, turn, strict=True)])
  assert one.keys() == other.keys() and all(np.isfinite(v.value) and v.protocol for v in one.values())
  for name, (value, _) in one.items():
    assert other[name].value == pytest.approx(value, rel=1e-6, abs=1e-9), name


def test_collect_leaves_padding_out():
  x = np.arange(12, dtype=np.float32).reshape(6, 2)
  batches = [(x[:4], np.ones(4, bool)), (np.concatenate([x[4:], x[:2]]), np.array([1, 1, 0, 0], bool))]
  found = collect(lambda x: jnp.asarray(x) * 2, batches)
  assert found.dtype == np.float64
  np.testing.assert_array_equal(found, 2 * x)
  with pytest.raises(UserError, match="no images"):
    collect(lambda x: x, [])


def test_features_of_photographs_part_real_from_noise():
  features = EfficientNetFeatures()
  grey = np.tanh(RNG.normal(size=(2, 32, 32, 1))).astype(np.float32)
  rows = features(features.load(), jnp.asarray(grey))
  assert rows.shape == (2, 1280)
  assert np.isfinite(rows).all()
  assert float(jnp.abs(rows[0] - rows[1]).max()) > 0
