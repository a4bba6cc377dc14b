"""Paired metrics: known values, parity with scikit-image, and sums that do not see batches or padding."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import skimage.metrics

from latents.errors import UserError
from latents.evaluate import PSNR, SSIM, Bands, EfficientNetFeatures, Energy, LPIPSMetric, PairedKernel, TokenAccuracy
from latents.evaluate.sums import add, total, zeros
from latents.pretrained import LPIPS, EfficientNetLite0
from tests.members.evaluate import METRICS

SHAPES = {"image": (32, 32, 3), "video": (2, 32, 32, 1), "audio": (40, 1), "text": (30,)}
CASES = [(name, make, kind) for name, make in METRICS for kind in make().kinds]
BY_NAME = pytest.mark.parametrize(("make", "kind"), [c[1:] for c in CASES], ids=[f"{c[0]}-{c[2]}" for c in CASES])


def signal(*shape: int, seed: int = 0) -> np.ndarray:
  return np.tanh(np.random.default_rng(seed).normal(size=shape)).astype(np.float32)


def network(metric):
  """Random parameters for the metrics that have a network."""
  if not isinstance(metric, LPIPSMetric | PairedKernel):
    return None
  net = LPIPS(metric.net) if isinstance(metric, LPIPSMetric) else EfficientNetLite0(metric.side)
  leaves, structure = jax.tree.flatten(net.abstract())
  return jax.tree.unflatten(structure, [0.1 * np.abs(signal(*x.shape, seed=i)) for i, x in enumerate(leaves)])


def measure(metric, x, y, mask=None, aux=None) -> dict[str, float]:
  mask = np.ones(len(x), bool) if mask is None else np.asarray(mask)
  return metric.result(jax.jit(metric.update)(metric.init(), x, y, mask, aux=aux))


@BY_NAME
def test_batches_shards_and_padding_change_nothing(make, kind):
  metric = make()
  aux, update = network(metric), jax.jit(metric.update)
  x, y = signal(6, *SHAPES[kind]), signal(6, *SHAPES[kind], seed=1)
  whole = metric.result(update(metric.init(), x, y, np.ones(6, bool), aux=aux))

  nothing = np.full_like(x, np.nan)  # padding may hold anything
  first = np.array([True] * 4 + [False] * 2)
  a = update(metric.init(), np.where(first.reshape(-1, *[1] * (x.ndim - 1)), x, nothing), y, first, aux=aux)
  rest = np.array([False, True, True, False, False, False])
  b = update(metric.init(), np.roll(x, -3, 0), np.roll(y, -3, 0), rest, aux=aux)
  summed = metric.result(jax.tree.map(jnp.add, a, b))
  one_after_the_other = metric.result(update(a, np.roll(x, -3, 0), np.roll(y, -3, 0), rest, aux=aux))

  assert len(whole) == (4 if isinstance(metric, Bands) else 1)
  for key, value in whole.items():
    assert np.isfinite(value)
    assert summed[key] == pytest.approx(value, rel=1e-6)
    assert one_after_the_other[key] == pytest.approx(value, rel=1e-6)


@BY_NAME
def test_nothing_is_nan(make, kind):
  assert all(np.isnan(v) for v in make().result(make().init()).values())


def test_sums_of_many_keep_their_digits():
  acc = jax.lax.fori_loop(0, 100_000, lambda _, acc: add(acc, jnp.float32(0.1)), zeros())
  assert float(total(acc)) == pytest.approx(100_000 * float(np.float32(0.1)), rel=1e-6)  # plain float32: 1e-4


def test_psnr_by_hand():
  x = np.zeros((2, 4, 4, 1), np.float32)
  y = x + np.array([0.2, 0.02], np.float32).reshape(2, 1, 1, 1)  # 0.1 and 0.01 of the range: 20 and 40 dB
  assert measure(PSNR(), x, y)["psnr"] == pytest.approx(30, abs=1e-4)
  assert measure(PSNR(), x, x)["psnr"] == pytest.approx(100)
  assert measure(PSNR(), x + 1, x + 7)["psnr"] == pytest.approx(100)  # clipped to [-1, 1]
  wave = signal(3, 50, 1)
  noisy = np.clip(wave + 0.1 * signal(3, 50, 1, seed=1), -1, 1)
  each = [skimage.metrics.peak_signal_noise_ratio(a, b, data_range=2) for a, b in zip(wave, noisy, strict=True)]
  assert measure(PSNR(), wave, noisy)["psnr"] == pytest.approx(np.mean(each), rel=1e-5)


@pytest.mark.parametrize("shape", [(3, 24, 17, 3), (2, 11, 32, 1)])
def test_ssim_is_scikit_images(shape):
  x = signal(*shape)
  flat = np.full(shape, 0.7, np.float32)
  for a, b in ((x, np.clip(x + 0.2 * signal(*shape, seed=1), -1, 1)), (flat, flat + 0.01 * x), (x, -x)):
    each = [
      skimage.metrics.structural_similarity(
        p / 2 + 0.5, q / 2 + 0.5, data_range=1, channel_axis=-1,
        gaussian_weights=True, sigma=1.5, use_sample_covariance=False,
      )
      for p, q in zip(a.astype(np.float64), b.astype(np.float64), strict=True)
    ]  # fmt: skip
    assert measure(SSIM(), a, b)["ssim"] == pytest.approx(np.mean(each), abs=1e-5)
  assert measure(SSIM(), x, x)["ssim"] == pytest.approx(1, abs=1e-6)


def test_ssim_of_video_is_the_mean_of_its_frames():
  x, y = signal(2, 3, 16, 16, 1), signal(2, 3, 16, 16, 1, seed=1)
  frames = measure(SSIM(), x.reshape(6, 16, 16, 1), y.reshape(6, 16, 16, 1))["ssim"]
  assert measure(SSIM(), x, y)["ssim"] == pytest.approx(frames, abs=1e-6)


def test_ssim_refuses_what_it_is_not_for():
  with pytest.raises(UserError, match="at least 11 px, got 10x16"):
    measure(SSIM(), *[np.zeros((1, 10, 16, 3), np.float32)] * 2)
  with pytest.raises(UserError, match="images and video"):
    measure(SSIM(), *[np.zeros((1, 100, 1), np.float32)] * 2)


def test_energy_by_hand():
  n = np.arange(32)
  low, high = np.cos(2 * np.pi * 2 / 32 * n), np.cos(2 * np.pi * 12 / 32 * n)
  x = (low + high).astype(np.float32)[None, :, None]
  for kept in (1.0, 0.5, 0.0):
    y = (low + kept * high).astype(np.float32)[None, :, None]
    assert measure(Energy(), x, y)["high_frequency_kept"] == pytest.approx(kept**2, abs=1e-5)
  # in two dimensions the radius counts: (6, 6) / 32 lies at 0.265, though each axis is below 0.25
  diagonal = np.cos(2 * np.pi * 6 / 32 * (n[:, None] + n[None])).astype(np.float32)[None, ..., None]
  assert float(Energy().above(jnp.asarray(diagonal))[0]) == pytest.approx(0.5, abs=1e-5)
  along = np.cos(2 * np.pi * 6 / 32 * (n[:, None] + 0 * n[None])).astype(np.float32)[None, ..., None]
  assert float(Energy().above(jnp.asarray(along))[0]) == pytest.approx(0, abs=1e-5)


def test_energy_above_zero_is_the_variance():
  for shape in ((2, 20, 3), (2, 9, 8, 3), (2, 3, 8, 8, 1)):
    x = jnp.asarray(signal(*shape))
    axes = (1,) if x.ndim == 3 else (x.ndim - 3, x.ndim - 2)
    expected = jnp.var(x, axes).reshape(len(x), -1).mean(1)
    np.testing.assert_allclose(Energy(cutoff=0.0).above(x), expected, rtol=1e-5)


def test_lpips_metric_is_named_after_its_network():
  assert LPIPSMetric("alex").name == "lpips_alex"
  with pytest.raises(UserError):
    LPIPSMetric(path="/nowhere.npz").load()


def test_token_accuracy_by_hand():
  x = np.array([[1, 2, 3, 4], [5, 6, 7, 8]], np.int32)
  y = np.array([[1, 2, 3, 0], [0, 6, 0, 0]], np.int32)  # 3/4 and 1/4
  assert measure(TokenAccuracy(), x, y)["token_accuracy"] == pytest.approx(0.5)
  assert measure(TokenAccuracy(), x, y, [True, False])["token_accuracy"] == pytest.approx(0.75)


def test_the_kernel_is_the_mean_over_all_pairs_of_different_pictures():
  metric = PairedKernel(side=32)
  aux, x = network(metric), signal(5, 32, 32, 3)
  y = np.float32(0.5) * x + np.float32(0.2) * signal(5, 32, 32, 3, seed=1)
  a, b = (np.asarray(EfficientNetFeatures(32)(aux, v), np.float64) for v in (x, y))
  kernel = lambda u, v: (u @ v.T / u.shape[1] + 1) ** 2
  apart = ~np.eye(5, dtype=bool)
  wanted = (kernel(a, a) + kernel(b, b) - 2 * kernel(a, b))[apart].mean()
  assert measure(metric, x, y, aux=aux)["kernel2_efficientnet_lite0"] == pytest.approx(wanted, rel=1e-4)
  assert measure(metric, x, x, aux=aux)["kernel2_efficientnet_lite0"] == 0
  assert np.isnan(measure(metric, x[:1], y[:1], aux=aux)["kernel2_efficientnet_lite0"])


def test_bands_tell_frequencies_apart():
  """A wave of a frequency in each band, kept to a half, all, none and twice of its height."""
  n, kept = 64, {2: 0.5, 6: 1.0, 12: 0.0, 24: 2.0}  # cycles in 64 samples: 1/32, 3/32, 3/16, 3/8
  t = np.arange(n)
  waves = {k: 0.1 * np.cos(2 * np.pi * k * t / n)[None, :, None, None] * np.ones((1, n, n, 1)) for k in kept}
  x = np.float32(sum(waves.values()))
  y = np.float32(sum(share * waves[k] for k, share in kept.items()))
  found = measure(Bands(), x, y)
  assert list(found) == ["band_0.0625", "band_0.125", "band_0.25", "band_top"]
  np.testing.assert_allclose(list(found.values()), [0.25, 1, 0, 4], atol=1e-5)
  whole = measure(Energy(cutoff=0.25), x, y)["high_frequency_kept"]
  assert found["band_top"] == pytest.approx(whole, rel=1e-5)
  assert np.isnan(measure(Bands(), 0 * x, y)["band_top"])
