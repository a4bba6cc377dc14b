"""DiffWave and WaveGrad, the mel encoder under them, short chains, and the distance that judges them."""

import dataclasses
import math
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from experiments.sound import diffwave, wavegrad
from latents.backbones import DiffWave, UNet, WaveGrad
from latents.backbones.diffwave import Stretch, embed_steps
from latents.decoders import FlowDecoder
from latents.diffusion import DDPM, Aligned, Betas, Process, Steps, Strided, posterior
from latents.encoders import MelEncoder
from latents.errors import UserError
from latents.evaluate import LogMel
from latents.media.log_mel import FLOOR, log_mel
from latents.runs import run
from latents.types import Latent
from tests.declared import make_data
from tests.test_bottlenecks import rng_normal
from tests.test_encoders_decoders import count, started

KEY = jax.random.key(0)
RNGS = {"params": KEY, "decoder": KEY}
PATH = Betas(1e-4, 0.05, steps=50)
FAST = (1e-4, 1e-3, 1e-2, 0.05, 0.2, 0.5)


# -- the mel encoder


def test_mels_are_those_of_the_judges_between_0_and_1():
  x = 0.3 * rng_normal(2, 512, 1)
  window = round(0.032 * 8000)
  ours = MelEncoder(rate=8000, hop=window // 2, window=window, bands=32)(x, train=False)
  theirs = 1 - log_mel(np.asarray(x), 8000) / math.log(FLOOR)  # frames begin at 0, not a quarter of a window before
  assert ours.shape == (2, 4, 32) and theirs.shape == (2, 3, 32)
  shifted = jnp.pad(x, ((0, 0), (window // 4, 0), (0, 0)))[:, :512]
  again = MelEncoder(rate=8000, hop=window // 2, window=window, bands=32)(shifted, train=False)
  np.testing.assert_allclose(again[:, 1:3], theirs[:, :2], atol=1e-4)


def test_silence_is_0_and_a_loud_sine_is_1():
  encoder = MelEncoder(rate=8000, hop=64, window=256, bands=40)
  assert not np.any(encoder(jnp.zeros((1, 1024, 1)), train=False) > 1e-6)
  sine = jnp.sin(2 * jnp.pi * 1000 / 8000 * jnp.arange(1024))[None, :, None]
  peak = np.asarray(encoder(sine, train=False))[0, 4:12].max(-1)
  np.testing.assert_allclose(peak, 1.0, atol=0.05)
  both = jnp.concatenate([sine, 0 * sine], -1)  # channels are averaged: half as loud
  np.testing.assert_allclose(encoder(both, train=False), encoder(sine / 2, train=False), atol=1e-6)


@pytest.mark.parametrize(
  ("fields", "length", "words"),
  [
    ({"hop": 64, "window": 256, "bands": 20}, 1000, "1000 does not divide by the encoder's stride 64"),
    ({"hop": 64, "window": 256, "bands": 160}, 1024, "160 mel bands at 8000 Hz need a window of more than 256"),
    ({"hop": 512, "window": 256, "bands": 20}, 1024, "leave out what lies between hops of 512"),
    ({"hop": 64, "window": 256, "bands": 20}, 64, "64 samples is too short for windows of 256"),
  ],
)
def test_mels_that_cannot_be_are_one_line(fields, length, words):
  with pytest.raises(UserError, match=words):
    MelEncoder(rate=8000, **fields)(jnp.zeros((1, length, 1)), train=False)


def test_the_distance_is_0_of_itself_and_6_db_of_twice_as_loud():
  x, mask = 0.2 * rng_normal(3, 2048, 1), np.array([True, True, False])
  metric = LogMel(rate=8000)
  of = lambda y: metric.result(metric.update(metric.init(), x, y, mask))["log_mel_db"]
  assert of(x) == 0
  np.testing.assert_allclose(of(2 * x), 20 * math.log10(2), rtol=1e-2)
  np.testing.assert_allclose(of(-x), 0, atol=1e-4)  # the phase is not heard
  assert metric.fits("audio", (2048, 1)) and not metric.fits("image", (8, 8, 1))


# -- short chains


@pytest.mark.parametrize(("path", "betas"), [(PATH, FAST), (Betas(1e-6, 0.01), (7e-6, 1.4e-4, 2.1e-3, 2.8e-2, 0.35))])
def test_a_short_chain_is_aligned_exactly(path, betas):
  times = Aligned(path, betas)(len(betas))
  bar = np.cumprod(1 - np.asarray(betas))
  np.testing.assert_allclose(path.alpha(times[:-1][::-1]) ** 2, bar, rtol=1e-12)
  assert times[-1] == 0 and np.all(np.diff(times) < 0)
  q = posterior(path, times[:-1], times[1:])  # the sampler's steps are the short chain's own
  before = np.concatenate([[1.0], bar[:-1]])
  np.testing.assert_allclose(q.small[::-1], (1 - before) / (1 - bar) * betas, rtol=1e-9)
  np.testing.assert_allclose(
    q.of_x[::-1][1:], (np.sqrt(1 - np.asarray(betas)) * (1 - before) / (1 - bar))[1:], rtol=1e-9
  )


def test_alignment_is_diffwaves_within_a_hundredth_of_a_step():
  """t + (sqrt(abar_t) - sqrt(bar_s)) / (sqrt(abar_t) - sqrt(abar_(t+1))), appendix B."""
  steps = np.arange(51)
  ours = 50 * Aligned(PATH, FAST)(6)[:-1][::-1]
  theirs = np.interp(-np.sqrt(np.cumprod(1 - np.asarray(FAST))), -PATH.alpha(steps / 50), steps)
  assert 0 < np.abs(ours - theirs).max() < 0.004


def test_chains_that_do_not_fit_are_one_line():
  with pytest.raises(UserError, match=r"ends at alpha = 0.1 has more noise than its path, which ends at 0.529"):
    Aligned(PATH, (0.9, 0.9))(2)
  with pytest.raises(UserError, match="lie within"):
    Aligned(PATH, (0.1, 1.0))(2)
  np.testing.assert_array_equal(Aligned(PATH, FAST)(50), Strided(50)(50))


def test_the_noise_of_white_data_is_told_and_drawn_by_both_chains():
  """Data of the deviation d: the best estimate of the noise is linear in x, and so is what a chain does with it."""
  d = 0.3

  class White(UNet):
    def __call__(self, x, t, cond, *, train=False):
      alpha = jnp.asarray(PATH.alpha(t))[:, None, None]
      return jnp.sqrt(1 - alpha**2) / (alpha**2 * d**2 + 1 - alpha**2) * x[..., :1]

  process = Process(PATH, predict="noise")
  decoder = FlowDecoder(White(4), 4, 1, DDPM(50), process, Steps(50), Aligned(PATH, FAST))
  z = jnp.zeros((64, 256, 1))
  for betas in (np.linspace(1e-4, 0.05, 50), np.asarray(FAST)):
    variance = 1.0
    for beta, bar in zip(betas[::-1], np.cumprod(1 - betas)[::-1], strict=True):  # algorithm 2
      noise = np.sqrt(1 - bar) / (bar * d**2 + 1 - bar)
      variance *= ((1 - beta / np.sqrt(1 - bar) * noise) / np.sqrt(1 - beta)) ** 2
      variance += beta * (1 - bar / (1 - beta)) / (1 - bar)
    drawn: Any = decoder.apply({}, Latent(z=z), steps=len(betas), method="sample", rngs={"decoder": KEY})
    np.testing.assert_allclose(drawn.std(), np.sqrt(variance), rtol=0.02)
    assert 0.65 * d < drawn.std() < d  # the fixed variance is that of data that are one point: too little here
  metric, real, away = LogMel(rate=8000), d * rng_normal(64, 1024, 1), []
  for steps in (50, 6, 2):  # the fewer steps, the further from the data
    drawn = decoder.apply({}, Latent(z=z), steps=steps, method="sample", rngs={"decoder": KEY})
    away.append(float(metric.each(real, drawn, None).mean()))
  assert away[0] + 0.2 < away[1] < away[2] - 0.2, away


# -- the process


def test_the_absolute_error_and_the_level():
  x0, eps = rng_normal(4, 6, 1), rng_normal(4, 6, 1, seed=1)
  tau = jnp.array([0.1, 0.4, 0.7, 1.0])
  x, out = PATH.mix(x0, eps, tau), rng_normal(4, 6, 1, seed=2)
  plain, grad = (Process(PATH, predict="noise", error=e).terms(out, x0, eps, x, tau)["flow"][0] for e in ("l2", "l1"))
  np.testing.assert_allclose(plain, (out - eps) ** 2, rtol=1e-5)
  np.testing.assert_allclose(grad, np.abs(out - eps), rtol=1e-5)
  np.testing.assert_array_equal(Process(PATH, predict="noise").inputs(x, tau)[1], tau)
  np.testing.assert_allclose(Process(PATH, tell="level").inputs(x, tau)[1], PATH.alpha(tau))


# -- the networks


@pytest.mark.parametrize("factor", [2, 3, 8])
def test_stretch_is_the_transposed_convolution(factor):
  x = rng_normal(2, 5, 7, 1)
  module: Any = Stretch(factor)
  weights = started(module, x)
  kernel, bias = weights["params"]["kernel"], weights["params"]["bias"]
  wide = jax.lax.conv_general_dilated(
    x, jnp.flip(kernel, (0, 1)), (1, 1), [(2 * factor - 1,) * 2, (1, 1)], lhs_dilation=(factor, 1),
    dimension_numbers=("NHWC", "HWIO", "NHWC"),
  )  # fmt: skip
  first = factor // 2
  np.testing.assert_allclose(module.apply(weights, x), wide[:, first : first + 5 * factor] + bias, atol=1e-5)


def test_steps_between_two_are_mixed():
  found = embed_steps(jnp.array([0.0, 0.5, 0.51, 1.0]), 50)
  j = np.arange(64)
  angle = 25 * 10.0 ** (4 * j / 63)
  np.testing.assert_allclose(found[1], np.concatenate([np.sin(angle), np.cos(angle)]), atol=1e-6)
  np.testing.assert_allclose(found[2], (embed_steps(jnp.array([0.5, 0.52]), 50)).mean(0), atol=1e-5)


def sizes(backbone, wave, mel) -> int:
  cond = None if mel is None else {"latent": jnp.zeros((1, *mel))}
  return count(jax.eval_shape(lambda: backbone.init(KEY, jnp.zeros((1, *wave)), jnp.zeros(1), cond)))


def test_the_networks_have_their_equations_size():
  """DiffWave's Base has 2.64M in the paper: 2,619,971 by its equations; WaveGrad's has 15M: 15,920,993."""
  layer = (512 * 64 + 64) + (3 * 64 * 128 + 128) + (80 * 128 + 128) + (64 * 128 + 128)
  step, ends, stretch = (128 * 512 + 512) + (512 * 512 + 512), (64 + 64) + (64 * 64 + 64) + (64 + 1), 2 * (32 * 3 + 1)
  assert sizes(DiffWave(mels=80), (512, 1), (2, 80)) == 30 * layer + step + ends + stretch == 2_619_971
  unconditional = sizes(DiffWave(), (512, 1), None)
  assert unconditional == 2_619_971 - 30 * (80 * 128 + 128) - stretch
  assert sizes(WaveGrad(), (600, 1), (2, 128)) == 15_920_993


def test_the_paper_scale_is_the_published_one(tmp_path):
  made = diffwave.experiment("paper", data=f"audio:{tmp_path}").stage1
  assert made.model.encoder == MelEncoder(rate=22_050, hop=256, window=1024, bands=80)
  assert sizes(made.model.decoder.backbone, (512, 1), (2, 80)) == 2_619_971
  made = wavegrad.experiment("paper", data=f"audio:{tmp_path}").stage1
  assert made.model.encoder.stride == made.model.decoder.stride == math.prod(made.model.decoder.backbone.factors) == 300
  assert sizes(made.model.decoder.backbone, (600, 1), (2, 128)) == 15_920_993
  decoder = made.model.decoder
  assert decoder.process.path == decoder.grid.path and len(decoder.grid(6)) == 7


def vocoder(backbone, hop: int = 6) -> FlowDecoder:
  return FlowDecoder(backbone, hop, 1, DDPM(6), Process(PATH, predict="noise"), Steps(50), Aligned(PATH, FAST))


SMALL = {
  "diffwave": lambda: DiffWave(8, 3, 2, mels=5, factors=(2, 3)),
  "wavegrad": lambda: WaveGrad(8, (3, 2), (8, 6), (4, 6), ((1, 2, 1, 2),) * 2),
}


@pytest.mark.parametrize("name", SMALL)
def test_a_network_takes_the_latent_itself_and_any_length(name):
  decoder = vocoder(SMALL[name]())
  assert decoder.conditions == () and decoder.classes == 0
  z, x = rng_normal(2, 8, 5), rng_normal(2, 48, 1, seed=1)
  weights = jax.tree.map(lambda a: 0.5 * a, started(decoder, Latent(z=z), x, train=True))
  draw = jax.jit(lambda z: decoder.apply(weights, Latent(z=z), method="sample", rngs={"decoder": KEY}))
  wave = draw(z)
  assert wave.shape == (2, 48, 1) and draw(rng_normal(2, 14, 5)).shape == (2, 84, 1)
  assert np.abs(wave - draw(z.at[:, 3].add(1.0))).max() > 1e-3


@pytest.mark.parametrize("name", SMALL)
def test_a_condition_that_is_missing_or_does_not_fit_is_one_line(name):
  backbone, x, t = SMALL[name](), jnp.zeros((1, 48, 1)), jnp.zeros(1)
  run = lambda cond, t=t: jax.eval_shape(lambda: backbone.init(KEY, x, t, cond))
  for cond in (None, {}):
    with pytest.raises(UserError, match="conditioned on 'latent', but the condition has nothing"):
      run(cond)
  with pytest.raises(UserError, match=r"makes 6 samples of a frame: a mel spectrogram of \(7, 5\) does not fit 48"):
    run({"latent": jnp.zeros((1, 7, 5))})
  with pytest.raises(UserError, match="is told one time, not 2"):
    run({"latent": jnp.zeros((1, 8, 5))}, jnp.zeros((1, 2)))


def test_other_bands_and_uneven_lists_are_one_line():
  cond = {"latent": jnp.zeros((1, 8, 4))}
  with pytest.raises(UserError, match=r"DiffWave\(mels=5\) is told 4 bands"):
    jax.eval_shape(lambda: SMALL["diffwave"]().init(KEY, jnp.zeros((1, 48, 1)), jnp.zeros(1), cond))
  with pytest.raises(UserError, match="as many as one another"):
    uneven = SMALL["wavegrad"]().clone(up=(8, 8, 8))
    jax.eval_shape(lambda: uneven.init(KEY, jnp.zeros((1, 48, 1)), jnp.zeros(1), cond))


def test_a_rate_that_is_not_the_datas_is_refused(tmp_path):
  data = make_data(tmp_path)
  made = diffwave.experiment(data=f"audio:{data / 'sounds'}")
  one = dataclasses.replace(made.stage1, model=made.stage1.model.clone(encoder=MelEncoder(8_001, 64, 256, 40)))
  with pytest.raises(UserError, match="the encoder hears sound at 8001 Hz, the data have 8000"):
    run.run(dataclasses.replace(made, stage1=one), tmp_path / "runs", None, "test")
