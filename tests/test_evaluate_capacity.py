"""Capacity, code usage, size and the picture of latents against closed forms."""

import math

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from latents.evaluate import CodeCapacity, GaussianCapacity, pca_picture, tsr

RNG = np.random.default_rng(0)


def test_tsr_of_published_models():
  assert tsr((256, 256, 3), (32, 32, 4)) == 48  # SD f8
  assert tsr((256, 256, 3), (16, 16, 32)) == 24  # VA-VAE
  assert tsr((256, 256, 3), (16, 16)) == 768  # VQGAN f16, codes


def test_gaussian_capacity_of_a_known_channel():
  """mu of variance 3 and noise of variance 1: one bit a number; a collapsed number carries none."""
  n = 512
  mean = np.zeros((n, 2, 2), np.float32)
  mean[:, :, 0] = math.sqrt(3) * np.repeat([[1], [-1]], n // 2, 0) + 5  # the mean of mu carries nothing
  std = np.ones((n, 2, 2), np.float32)
  meter = GaussianCapacity((2, 2))
  values = meter.result(jax.jit(meter.update)(meter.init(), mean, std, np.ones(n, bool)))
  assert values["capacity_bits"] == pytest.approx(2.0, rel=1e-5)
  assert values["active_share"] == 0.5
  assert values["kl_bits"] == pytest.approx(2 * 0.5 * 28 / math.log(2), rel=1e-5)


def test_gaussian_capacity_without_noise():
  meter = GaussianCapacity((1,), active=0.0)
  mean = np.array([[1.0], [-1.0]], np.float32)
  some = meter.update(meter.init(), mean, np.zeros((2, 1), np.float32), np.ones(2, bool))
  assert meter.result(some)["capacity_bits"] == math.inf
  flat = meter.update(meter.init(), 0 * mean, np.zeros((2, 1), np.float32), np.ones(2, bool))
  assert meter.result(flat)["capacity_bits"] == 0


def test_gaussian_capacity_of_shards_and_padding():
  meter = GaussianCapacity((3, 2))
  mean = RNG.normal(size=(7, 3, 2)).astype(np.float32)
  std = RNG.uniform(0.1, 1, size=(7, 3, 2)).astype(np.float32)
  update = jax.jit(meter.update)
  whole = meter.result(update(meter.init(), mean, std, np.ones(7, bool)))
  a = update(meter.init(), mean[:4], std[:4], np.ones(4, bool))
  bad = np.full((1, 3, 2), np.nan, np.float32)
  b = update(meter.init(), np.concatenate([mean[4:], bad]), np.concatenate([std[4:], bad]), np.arange(4) < 3)
  assert meter.result(jax.tree.map(jnp.add, a, b)) == pytest.approx(whole, rel=1e-6)
  assert all(math.isnan(v) for v in meter.result(meter.init()).values())


def test_codes_that_are_uniform():
  meter = CodeCapacity(8)
  codes = np.arange(16, dtype=np.int32).reshape(2, 8) % 4  # four of eight codes, equally often
  values = meter.result(jax.jit(meter.update)(meter.init(), codes, np.ones(2, bool)))
  assert values == pytest.approx(
    {"usage": 0.5, "perplexity": 4, "entropy_bits": 2, "rate_bits": 24, "entropy_rate_bits": 16}
  )


def test_codes_in_groups_and_padding():
  meter = CodeCapacity(4, groups=2)
  codes = np.stack([np.arange(8) % 2, np.arange(8) % 4], -1).reshape(2, 2, 2, 2).astype(np.int32)
  values = meter.result(meter.update(meter.init(), codes, np.ones(2, bool)))
  assert values["usage"] == 0.75
  assert values["perplexity"] == pytest.approx(3)
  assert values["entropy_bits"] == pytest.approx(3)
  assert values["rate_bits"] == pytest.approx(4 * 2 * 2)
  padded = np.concatenate([codes, np.full((1, 2, 2, 2), 3, np.int32)])
  some = meter.update(meter.init(), padded, np.array([True, True, False]))
  assert meter.result(some) == pytest.approx(values)


def test_codes_of_variable_length():
  meter = CodeCapacity(4)
  codes = np.array([[0, 1, 3], [2, 3, 3]], np.int32)
  keep = np.array([[True, True, False], [True, False, False]])
  values = meter.result(meter.update(meter.init(), codes, np.ones(2, bool), keep))
  assert values["rate_bits"] == pytest.approx(1.5 * 2)
  assert values["perplexity"] == pytest.approx(3)
  assert all(math.isnan(v) for v in meter.result(meter.init()).values())


def test_pca_orders_scales_and_fixes_the_sign():
  n = 2000
  parts = RNG.normal(size=(n, 3)) * [3.0, 2.0, 1.0]
  basis, _ = np.linalg.qr(RNG.normal(size=(6, 6)))
  z = (parts @ basis[:3] + 4).reshape(20, 10, 10, 6)
  picture = pca_picture(z)
  assert picture.shape == (20, 10, 10, 3)
  assert (picture.dtype, picture.min(), picture.max()) == (np.float32, 0, 1)
  for i in range(3):
    inside = (picture.reshape(n, 3)[:, i] > 0) & (picture.reshape(n, 3)[:, i] < 1)
    assert abs(np.corrcoef(picture.reshape(n, 3)[inside, i], parts[inside, i])[0, 1]) > 0.99
  np.testing.assert_array_equal(picture, pca_picture(z))


def test_pca_of_narrow_and_constant_latents():
  ramp = np.linspace(-1, 1, 101).reshape(1, 101, 1)
  picture = pca_picture(ramp)
  np.testing.assert_array_equal(picture[..., 1:], 0.5)
  assert (np.diff(picture[0, 2:-2, 0]) > 0).all()  # the largest loading is positive
  np.testing.assert_array_equal(pca_picture(np.full((2, 4, 5), 7.0)), 0.5)
