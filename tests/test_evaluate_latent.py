"""Capacity, code usage, spectrum, smoothness, dimension and the picture of latents against closed forms."""

import math
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from latents.bottlenecks import code_logs
from latents.evaluate import (
  Channels,
  CodeCapacity,
  EffectiveDimension,
  GaussianCapacity,
  Held,
  Kurtosis,
  Layout,
  Numbers,
  Outliers,
  Scale,
  Smoothness,
  Spectrum,
  pca_picture,
  tsr,
)
from latents.types import Latent
from tests.members.evaluate import LATENT_METRICS

RNG = np.random.default_rng(0)
GAUSSIAN = Layout((8, 8, 1), Latent(z=np.zeros((4, 4, 3))), gaussian=True, std=np.array([1.0, 0.5, 2.0]))
CODES = Layout((8, 8, 1), Latent(z=np.zeros((4, 4, 3)), codes=np.zeros((4, 4, 2), np.int32)), (7, 5), std=np.ones(3))
PLAIN = Layout((8, 8, 1), Latent(z=np.zeros((4, 4, 3))), std=np.array([1.0, 0.5, 2.0]))
LINE = Layout((16, 1), Latent(z=np.zeros((8, 3))), std=np.ones(3))
VOLUME = Layout((4, 8, 8, 1), Latent(z=np.zeros((2, 4, 4, 3))), std=np.ones(3))
LAYOUTS = {"gaussian": GAUSSIAN, "codes": CODES, "plain": PLAIN, "line": LINE, "volume": VOLUME}
CASES = [(f"{n}-{k}", make, at) for n, make in LATENT_METRICS for k, at in LAYOUTS.items() if make().fits(at)]
BY_NAME = pytest.mark.parametrize(("make", "layout"), [c[1:] for c in CASES], ids=[c[0] for c in CASES])


def latents(layout: Layout, n: int) -> tuple[Latent, Any]:
  """Random latents of a layout, and their posterior."""
  z = RNG.normal(size=(n, *layout.latent.z.shape)).astype(np.float32)
  codes = None
  if layout.vocab:
    codes = RNG.integers(0, layout.vocab, (n, *layout.latent.codes.shape)).astype(np.int32)
  std = RNG.uniform(0.1, 1, z.shape).astype(np.float32)
  return Latent(z=z, codes=codes), (z + 1, std) if layout.gaussian else None


def measure(metric, latent: Latent, layout: Layout, posterior: Any = None, mask: Any = None) -> dict:
  n = len(jax.tree.leaves(latent)[0])
  held = Held(None, np.ones(n, bool) if mask is None else mask, posterior)
  return metric.result(metric.update(metric.init(layout), latent, held), layout)


@BY_NAME
def test_shards_padding_and_order_change_nothing(make, layout):
  metric = make()
  latent, posterior = latents(layout, 7)
  update = jax.jit(metric.update)
  whole = metric.result(update(metric.init(layout), latent, Held(None, np.ones(7, bool), posterior)), layout)
  assert whole and all(np.isfinite(v).all() for v in whole.values())

  spoilt = jax.tree.map(lambda a: np.full_like(a, np.nan) if a.dtype.kind == "f" else a, (latent, posterior))
  keep = np.array([1, 1, 1, 1, 0, 0, 0], bool)
  take = lambda a, b: np.where(keep.reshape(-1, *[1] * (a.ndim - 1)), a, b)
  part = jax.tree.map(take, (latent, posterior), spoilt)
  a = update(metric.init(layout), part[0], Held(None, keep, part[1]))
  b = update(metric.init(layout), latent, Held(None, ~keep, posterior))
  summed = metric.result(jax.tree.map(jnp.add, a, b), layout)
  back = np.arange(7)[::-1]
  held = Held(None, np.ones(7, bool), posterior)
  turned = jax.tree.map(lambda x: x[back], (latent, held))
  for found in (summed, metric.result(update(metric.init(layout), *turned), layout)):
    for name, value in whole.items():
      np.testing.assert_allclose(found[name], value, rtol=1e-5, atol=1e-6, err_msg=name)


@BY_NAME
def test_nothing_is_nan_under_the_same_names(make, layout):
  metric = make()
  latent, posterior = latents(layout, 3)
  names = measure(metric, latent, layout, posterior)
  nothing = metric.result(metric.init(layout), layout)
  assert list(nothing) == list(names)
  assert not jax.tree.leaves(metric.init(layout)) or all(np.isnan(v) for v in nothing.values())


def test_tsr_of_published_models():
  assert tsr((256, 256, 3), (32, 32, 4)) == 48  # SD f8
  assert tsr((256, 256, 3), (16, 16, 32)) == 24  # VA-VAE
  assert tsr((256, 256, 3), (16, 16)) == 768  # VQGAN f16, codes


def gaussian(*shape: int) -> Layout:
  return Layout((1,), Latent(z=np.zeros(shape)), gaussian=True)


def test_gaussian_capacity_of_a_known_channel():
  """mu of variance 3 and noise of variance 1: one bit a number; a collapsed number carries none."""
  n = 512
  mean = np.zeros((n, 2, 2), np.float32)
  mean[:, :, 0] = math.sqrt(3) * np.repeat([[1], [-1]], n // 2, 0) + 5  # the mean of mu carries nothing
  values = measure(GaussianCapacity(), Latent(z=mean), gaussian(2, 2), (mean, np.ones((n, 2, 2), np.float32)))
  assert values["capacity_bits"] == values["bits"] == pytest.approx(2.0, rel=1e-5)
  assert values["active_share"] == 0.5
  assert values["kl_bits"] == pytest.approx(2 * 0.5 * 28 / math.log(2), rel=1e-5)


def test_gaussian_capacity_without_noise():
  meter, silent = GaussianCapacity(active=0.0), np.zeros((2, 1), np.float32)
  mean = np.array([[1.0], [-1.0]], np.float32)
  assert measure(meter, Latent(z=mean), gaussian(1), (mean, silent))["capacity_bits"] == math.inf
  assert measure(meter, Latent(z=mean), gaussian(1), (0 * mean, silent))["capacity_bits"] == 0


def codes(of: np.ndarray, vocab: tuple[int, ...], mask: Any = None, keep: Any = None) -> dict:
  layout = Layout((1,), Latent(codes=of[0]), vocab)
  return measure(CodeCapacity(), Latent(codes=of.astype(np.int32), mask=keep), layout, mask=mask)


def test_codes_that_are_uniform():
  values = codes(np.arange(16).reshape(2, 8) % 4, (8,))  # four of eight codes, equally often
  expected = {"usage": 0.5, "perplexity": 4, "entropy_bits": 2, "rate_bits": 24, "entropy_rate_bits": 16, "bits": 24}
  expected |= {"usage_ceiling": 1 - (7 / 8) ** 16, "dead": 4, "tokens_counted": 16}
  assert values == pytest.approx(expected)


@pytest.mark.parametrize(("tokens", "perplexity", "usage"), [(1024, 566, 0.625), (4096, 895, 0.98), (65536, 1016, 1.0)])
def test_few_tokens_of_a_uniform_code_look_like_fewer_codes(tokens, perplexity, usage):
  """1,024 codes, all equally likely: the catalogue's numbers, each of one draw (deviations over draws 11, 6, 0.3)."""
  drawn = np.random.default_rng(0).integers(0, 1024, (4, tokens))
  found = [codes(d.reshape(-1, 64), (1024,)) for d in drawn]
  assert np.mean([f["perplexity"] for f in found]) == pytest.approx(perplexity, rel=0.03)
  assert np.mean([f["usage"] for f in found]) == pytest.approx(usage, abs=0.015)
  for one, d in zip(found, drawn, strict=True):
    assert one["tokens_counted"] == tokens
    assert one["usage_ceiling"] == pytest.approx(1 - (1 - 1 / 1024) ** tokens)
    assert one["usage"] == pytest.approx(one["usage_ceiling"], abs=0.03)
    assert one["dead"] == round(1024 * (1 - one["usage"]))
    logs = code_logs(d.astype(np.int32), 1024)
    assert {name: float(v) for name, v in logs.items()} == pytest.approx({n: one[n] for n in logs}, rel=1e-4)


def test_stages_that_are_left_out_are_no_codes():
  some = np.stack([np.arange(8) % 2, np.arange(8) % 4], -1).reshape(2, 4, 2)
  some[1, :, 1] = -1
  values = codes(some, (4, 4))
  assert values["usage"] == (2 / 4 + 4 / 4) / 2 and values["perplexity"] == pytest.approx((2 + 4) / 2)
  assert values["rate_bits"] == (8 + 4) / 2 * 2 and values["dead"] == 2
  none = codes(np.full((2, 4, 2), -1) * np.array([0, 1]), (4, 4))  # of one stage nothing at all
  assert none["usage"] == (1 / 4 + 0) / 2 and none["entropy_bits"] == 0.0 and none["dead"] == 7


def test_codes_in_groups_and_padding():
  some = np.stack([np.arange(8) % 2, np.arange(8) % 4], -1).reshape(2, 2, 2, 2)
  values = codes(some, (4, 4))
  assert values["usage"] == 0.75
  assert values["perplexity"] == pytest.approx(3)
  assert values["entropy_bits"] == pytest.approx(3)
  assert values["rate_bits"] == pytest.approx(4 * 2 * 2)
  padded = np.concatenate([some, np.full((1, 2, 2, 2), 3)])
  assert codes(padded, (4, 4), mask=np.array([True, True, False])) == pytest.approx(values)


def test_codebooks_of_different_sizes_count_each_its_own():
  some = np.stack([np.arange(8) % 2, np.arange(8) % 4], -1).reshape(2, 2, 2, 2)
  values = codes(some, (2, 8))
  assert values["usage"] == pytest.approx((2 / 2 + 4 / 8) / 2)
  assert values["rate_bits"] == pytest.approx(4 * (1 + 3))


def test_codes_of_variable_length():
  keep = np.array([[True, True, False], [True, False, False]])
  values = codes(np.array([[0, 1, 3], [2, 3, 3]]), (4,), keep=keep)
  assert values["rate_bits"] == pytest.approx(1.5 * 2)
  assert values["perplexity"] == pytest.approx(3)


def test_numbers_tell_what_the_statistics_say():
  assert measure(Numbers(), Latent(z=np.zeros((1, 4, 4, 3))), PLAIN) == {"numbers": 48, "std_spread": [0.5, 2.0]}
  assert not Numbers().fits(GAUSSIAN) and not Numbers().fits(CODES)


def plain(*shape: int) -> Layout:
  return Layout((1,), Latent(z=np.zeros(shape)))


@pytest.mark.parametrize("shape", [(64,), (16, 16), (8, 8, 8)])
@pytest.mark.parametrize("slope", [0.0, -1.0, -2.0])
def test_the_slope_of_a_spectrum_that_was_made(shape, slope):
  """Random phases, |F| = f^(slope/2): the power is f^slope at each frequency, exactly."""
  radius = np.sqrt(sum(f**2 for f in np.meshgrid(*[np.fft.fftfreq(n) for n in shape], indexing="ij")))
  phase = np.fft.fftn(RNG.normal(size=(2, *shape)), axes=range(1, len(shape) + 1))
  size = np.where(radius > 0, np.where(radius > 0, radius, 1.0) ** (slope / 2), 3.0)  # the mean says nothing
  z = np.fft.ifftn(phase / np.abs(phase) * size, axes=range(1, len(shape) + 1)).real
  values = measure(Spectrum(), Latent(z=z[..., None].astype(np.float32)), plain(*shape, 1))
  assert values["spectrum_slope"] == pytest.approx(slope, abs=1e-4)
  power = size**2 * (radius > 0)
  assert values["fine_power"] == pytest.approx(power[radius > 0.25].sum() / power.sum(), rel=1e-4)


def test_a_spectrum_needs_two_frequencies():
  assert Spectrum().fits(plain(4, 2)) and not Spectrum().fits(plain(3, 3, 2)) and not Spectrum().fits(plain(5))
  assert math.isnan(measure(Spectrum(), Latent(z=np.ones((2, 8, 1), np.float32)), plain(8, 1))["spectrum_slope"])


def test_smoothness_of_constant_alternating_and_white_latents():
  def found(z):
    return measure(Smoothness(), Latent(z=z.astype(np.float32)), plain(*z.shape[1:]))["neighbour_correlation"]

  sign = np.where(np.arange(10) % 2, 1.0, -1.0)
  assert found(np.broadcast_to(sign[:, None, None, None], (10, 4, 4, 2))) == pytest.approx(1)
  assert found(np.broadcast_to(sign[None, :, None], (3, 10, 2))) == pytest.approx(-1)
  stripes = np.broadcast_to(sign[None, :8, None, None], (3, 8, 8, 1))  # -1 along one axis, 1 along the other
  assert found(stripes) == pytest.approx(0)
  assert abs(found(RNG.normal(size=(50, 16, 16, 2)) + 3)) < 0.02
  assert not Smoothness().fits(plain(1, 5)) and not Smoothness().fits(plain(5))


def test_the_effective_dimension_counts_directions_that_vary():
  corners = np.array([[a, b, 7.0] for a in (-1, 1) for b in (-1, 1)])  # two directions, one constant channel
  values = measure(EffectiveDimension(), Latent(z=corners[None].astype(np.float32)), plain(4, 3))
  assert values["effective_channels"] == pytest.approx(2)
  same = np.repeat(RNG.normal(size=(5, 9, 1)), 4, -1).astype(np.float32)
  assert measure(EffectiveDimension(), Latent(z=same), plain(9, 4))["effective_channels"] == pytest.approx(1, rel=1e-5)
  uneven = np.array([[2.0, 0], [-2, 0], [0, 1], [0, -1]])  # variances 2 and 1/2: 2.5^2 / 4.25
  values = measure(EffectiveDimension(), Latent(z=uneven[None].astype(np.float32)), plain(4, 2))
  assert values["effective_channels"] == pytest.approx(2.5**2 / 4.25)


def test_kurtosis_of_coins_and_of_a_lottery():
  coins = np.array([[1.0, 5], [-1, 5]])[None].astype(np.float32)  # the second channel does not vary
  assert measure(Kurtosis(), Latent(z=coins), plain(2, 2))["excess_kurtosis"] == pytest.approx(-2)
  lottery = np.array([0.0] * 9 + [10.0]).reshape(1, 10, 1).astype(np.float32)  # p = 1/10: 1 / (p (1 - p)) - 6
  assert measure(Kurtosis(), Latent(z=lottery), plain(10, 1))["excess_kurtosis"] == pytest.approx(
    1 / 0.09 - 6, rel=1e-5
  )


def test_outliers_are_counted_and_the_scale_is_that_before_normalisation():
  z = np.array([[4.5, 0.0], [-3.9, -9.0], [1.0, 4.0], [0.0, 0.0]])[None].astype(np.float32)
  assert measure(Outliers(), Latent(z=z), plain(4, 2)) == {"outliers": 0.25}
  assert measure(Outliers(3.0), Latent(z=z), plain(4, 2)) == {"outliers": 0.5}
  assert measure(Scale(), Latent(z=np.zeros((1, 4, 4, 3))), PLAIN)["scale"] == pytest.approx(
    np.sqrt(np.square(np.asarray(PLAIN.std)).mean())
  )
  assert not Scale().fits(CODES)


def test_channels_tell_what_normalisation_left():
  z = np.array([[1.0, 3.0], [-1.0, -2.0]])[None].astype(np.float32)
  values = measure(Channels(), Latent(z=z), plain(2, 2))
  assert values == {"channel_mean": pytest.approx(0.5), "channel_std": [pytest.approx(1.0), pytest.approx(2.5)]}
  masked = Latent(z=z, mask=np.array([[True, False]]))
  assert measure(Channels(), masked, plain(2, 2)) == {"channel_mean": pytest.approx(3), "channel_std": [0.0, 0.0]}


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
