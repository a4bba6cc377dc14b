"""Papers that sum, beside terms that are means: the weights, clamps, clips and epsilons of the paper scales.

Each test writes the objective as the authors' code has it and compares it with the declared one.
"""

import dataclasses
import math
from pathlib import Path

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from experiments.codes import vq_transformer
from experiments.decoders import cascade, decoder_finetune
from experiments.images import ldm_kl, ltx_image, stacked
from experiments.shaping import eq_vae, va_vae
from experiments.sound import dac_gan
from experiments.tokens1d import titok
from latents.bottlenecks import KL
from latents.discriminators import Verdict
from latents.losses import L1, Adversarial, Charbonnier, LogitLaplace, LowPass, PairAdversarial, Wavelet, conversions
from latents.losses.adversarial import matching
from latents.losses.spectral import magnitudes
from latents.nn.wavelet import haar
from latents.optim import Adam
from latents.types import Seen
from tests.declared import make_data

NUMBERS = 256 * 256 * 3
LDM = {"ldm_kl": (ldm_kl, (32, 32, 4)), "va_vae": (va_vae, (16, 16, 32)), "eq_vae": (eq_vae, (32, 32, 4))}


def declared(module):
  return module.experiment("paper").stage1


@pytest.mark.parametrize("name", LDM)
def test_the_sum_of_ldm_is_so_many_times_the_mean(name):
  """contperceptual.py: (sum |x - x_hat| + p, p of an example at every number) / B + 1e-6 sum(kl) / B."""
  module, latent = LDM[name]
  stage, rng = declared(module), np.random.default_rng(0)
  x, x_hat = (rng.uniform(-1, 1, (2, 256, 256, 3)).astype(np.float32) for _ in range(2))
  perceptual, h = rng.uniform(0, 1, 2), rng.standard_normal((2, *latent[:-1], 2 * latent[-1])).astype(np.float32)
  part = KL(dim=latent[-1])
  assert part == stage.model.bottleneck
  variables = part.init(jax.random.key(0), h, train=False)
  mean, logvar = np.split(np.asarray(h @ variables["params"]["project"]["kernel"], np.float64), 2, -1)
  kl = 0.5 * (mean**2 + np.exp(logvar) - 1 - logvar)
  theirs = (np.abs(x.astype(np.float64) - x_hat) + perceptual[:, None, None, None]).sum() / 2 + 1e-6 * kl.sum() / 2
  weights = {name: loss.weight for name, loss in stage.losses.items()}
  terms = {"l1": float(L1()(x, x_hat)), "lpips": perceptual.mean(), **part.apply(variables, h, train=False).terms}
  ours = sum(weights[name] * float(terms[name]) for name in terms)
  assert NUMBERS * ours == pytest.approx(theirs, rel=1e-6)
  assert NUMBERS * weights["kl"] * float(terms["kl"]) == pytest.approx(1e-6 * kl.sum() / 2, rel=1e-4)


@pytest.mark.parametrize("slope", [1e-3, 1.0, 1e6, 1e10])
@pytest.mark.parametrize(("module", "name", "clamp"), [(ldm_kl, "gan", 1e4), (va_vae, "gan", 1e4), (va_vae, "vf", 1e8)])
def test_the_adaptive_weight_is_theirs_over_the_numbers_of_a_picture(module, name, clamp, slope):
  """clamp(|grad of the sum| / (|grad of the term| + 1e-4), 0, clamp): the clamp is of a ratio to a sum."""
  own = {"w": jnp.float32(0.5)}
  theirs = min(slope / (0.5 + 1e-4), clamp)
  found = declared(module).losses[name].adaptive_weight({"w": jnp.float32(slope / NUMBERS)}, own)
  assert NUMBERS * float(found) == pytest.approx(theirs, rel=1e-5)


def test_a_paper_whose_sum_is_a_mean_keeps_its_clamp():
  assert declared(vq_transformer).losses["gan"].clamp == 1e4  # taming's loss is a mean


@pytest.mark.parametrize("module", [ldm_kl, va_vae, eq_vae, decoder_finetune])
def test_adam_goes_the_way_that_it_goes_on_the_sum(module):
  optimizer = declared(module).optimizer
  grads = {"w": jnp.array([1e-9, 1e-7, 1.0], jnp.float32)}
  moved = []
  for rule, scale in ((optimizer, NUMBERS), (dataclasses.replace(optimizer, eps=1e-8), 1)):
    tx = rule.make(10)
    moved.append(tx.update(jax.tree.map(lambda a, s=scale: a / s, grads), tx.init(grads), grads)[0]["w"])
  np.testing.assert_allclose(*moved, rtol=1e-4)


@pytest.mark.parametrize("module", [cascade, stacked])
def test_losses_of_our_own_have_adams_own_epsilon(module):
  assert declared(module).optimizer.eps == 1e-8


@pytest.fixture(scope="module")
def dac(tmp_path_factory) -> dict:
  data = Path(make_data(tmp_path_factory.mktemp("data"))) / "sounds"
  return {"stage": dac_gan.experiment("paper", data=f"audio:{data}").stage1}


def test_dacs_spectral_term_is_a_sum_over_windows_of_log10(dac):
  """dac/nn/loss.py, MelSpectrogramLoss with log_weight 1 and mag_weight 0, times 15; here spectra in place of mels."""
  loss, rng = dac["stage"].losses["stft"], np.random.default_rng(0)
  x, x_hat = (rng.uniform(-1, 1, (1, 4096, 1)).astype(np.float32) for _ in range(2))
  pairs = [[np.asarray(magnitudes(a, w), np.float64) for a in (x, x_hat)] for w in loss.windows]
  logs = [np.abs(np.log10(a + loss.floor) - np.log10(b + loss.floor)).mean() for a, b in pairs]
  plain = [np.abs(a - b).mean() for a, b in pairs]
  ours = loss.weight * float(loss(x, x_hat))
  assert ours - loss.weight * np.mean(plain) == pytest.approx(15 * sum(logs), rel=1e-4)


@pytest.mark.parametrize("name", ["gan", "bands"])
def test_dacs_judges_are_sums_over_networks_and_layers(dac, name):
  loss, rng = dac["stage"].losses[name], np.random.default_rng(0)
  judge = loss.discriminator
  if name == "gan":
    networks, layers = len(judge.periods), len(judge.widths)
  else:
    networks, layers = len(judge.windows), 5 * len(judge.bands)
  real, fake = (
    Verdict(
      tuple(rng.standard_normal((2, 5, 1)).astype(np.float32) for _ in range(networks)),
      tuple(tuple(rng.standard_normal((2, 5, 3)).astype(np.float32) for _ in range(layers)) for _ in range(networks)),
    )
    for _ in range(2)
  )
  felt = loss.weight * (float(loss.generator(*fake.logits)) + loss.features * float(matching(real, fake)))
  hidden = [np.abs(a - b).mean() for r, f in zip(real.features, fake.features, strict=True)
            for a, b in zip(r, f, strict=True)]  # fmt: skip
  assert felt == pytest.approx(sum(((1 - f) ** 2).mean() for f in fake.logits) + 2 * sum(hidden), rel=1e-5)
  learnt = float(loss.discriminate(real.logits, fake.logits)[0])
  theirs = sum((f**2).mean() + ((1 - r) ** 2).mean() for r, f in zip(real.logits, fake.logits, strict=True))
  assert learnt * 2 * networks == pytest.approx(theirs, rel=1e-5)
  # and what is clipped, and Adam's epsilon, shrink with it
  for size in (1e-7, 1.0, 1e3):
    grad = {"w": jnp.array([size, 2 * size], jnp.float32)}
    plain = Adam(lr=1e-4, betas=(0.8, 0.99), clip=10.0).make(10)
    own = loss.optimizer.make(10)
    mine = own.update(jax.tree.map(lambda a: a / (2 * networks), grad), own.init(grad), grad)[0]["w"]
    np.testing.assert_allclose(mine, plain.update(grad, plain.init(grad), grad)[0]["w"], rtol=1e-5)
  clip = optax.clip_by_global_norm(loss.optimizer.clip)
  cut, _ = clip.update({"w": jnp.array([1e3])}, clip.init({}))
  assert float(cut["w"][0]) == pytest.approx(10 / (2 * networks))


def test_dacs_codec_is_clipped_at_a_thousand(dac):
  assert dac["stage"].optimizer.clip == 1e3


def test_decay_is_of_what_the_papers_code_decays():
  """LlamaGen (train_c2i.py): all with two axes; 1d-tokenizer (train_utils.py): no embeddings, norms or biases."""
  assert vq_transformer.experiment("paper").stage2.optimizer.decays == "matrices"
  assert titok.experiment("paper").stage1.optimizer.decays == "kernels"
  assert math.isclose(titok.experiment("paper").stage1.optimizer.decay, 1e-4)


# -- latents/losses/conversions.py


def pair(*shape, seed=0):
  rng = np.random.default_rng(seed)
  return (rng.uniform(-1, 1, shape).astype(np.float32) for _ in range(2))


def test_a_sum_beside_a_sum_is_a_mean_beside_a_mean():
  """sum(a) + w sum(b) = N_a (mean a + of_sums(w) mean b); ltx_image's KL weight is LDM's."""
  rng = np.random.default_rng(0)
  a, b = rng.uniform(size=(3, 50)), rng.uniform(size=(3, 8))
  theirs = (a.sum() + 0.3 * b.sum()) / 3
  assert theirs == pytest.approx(50 * (a.mean() + conversions.of_sums(0.3, 8, among=50) * b.mean()), rel=1e-12)
  made = ltx_image.experiment("paper").stage1
  assert made.losses["kl"].weight == pytest.approx(1e-6 / 24)
  assert made.model.bottleneck.dim * 8 * 8 * 24 == NUMBERS


@pytest.mark.parametrize(("weight", "beta"), [(0.1, 0.05), (2.0, 1.0)])
def test_smooth_l1_is_huber_over_beta(weight, beta):
  """ViTok: 0.1 SmoothL1(0.05): d^2 / (2 beta) where |d| < beta, else |d| - beta / 2."""
  x, y = pair(2, 6, 6, 3)
  d = np.abs(x.astype(np.float64) - y)
  theirs = weight * np.where(d < beta, d**2 / (2 * beta), d - beta / 2).mean()
  loss = conversions.smooth_l1(weight, beta)
  assert loss.weight * float(loss(x, y)) == pytest.approx(theirs, rel=1e-6)


def test_a_gaussian_of_fixed_variance_is_a_weighted_square():
  x, y = pair(2, 4, 4, 1)
  nats = 0.5 * (x.astype(np.float64) - y) ** 2 / 0.3 + 0.5 * np.log(2 * np.pi * 0.3)
  loss = conversions.gaussian(0.3)
  assert loss.weight * float(loss(x, y)) + 0.5 * np.log(2 * np.pi * 0.3) == pytest.approx(nats.mean(), rel=1e-6)


def test_a_penalty_beside_a_sum_of_two_sides_is_halved():
  """StyleGAN2: softplus(D(x_hat)) + softplus(-D(x)) + gamma / 2 |dD/dx|^2; LeCAM: lambda beside the same sum."""

  class Line(nn.Module):
    @nn.compact
    def __call__(self, x, *, train):
      w = self.param("w", nn.initializers.ones, x.shape[1:])
      return Verdict((jnp.sum(w * x, axis=(1, 2))[:, None],))

  x, y = pair(3, 4, 2)
  w, gamma, lam = np.random.default_rng(5).normal(size=(4, 2)).astype(np.float32), 8.0, 0.2
  real, fake = ((w * v).sum((1, 2)) for v in (x, y))
  sides = np.log1p(np.exp(-real)).mean() + np.log1p(np.exp(fake)).mean()
  band = (np.maximum(real - fake.mean(), 0) ** 2).mean() + (np.maximum(real.mean() - fake, 0) ** 2).mean()
  theirs = sides + 0.5 * gamma * (w**2).sum() + lam * band
  loss = Adversarial(
    discriminator=Line(), objective="nonsaturating", r1=conversions.penalty(gamma), r1_every=1,
    lecam=conversions.penalty(lam),
  )  # fmt: skip
  zeros = {name: jnp.zeros(()) for name in ("real", "fake", "share")}
  seen = Seen(x, x, y, None, None, None, {}, jnp.int32(0))
  ours = loss.learn(seen, {"params": {"w": w}, "lecam": zeros}, aux=None, key=None)
  assert 2 * float(ours.value) == pytest.approx(theirs, rel=1e-4)


def test_sums_of_the_new_losses():
  """Over bands of their means (LTX-Video), over numbers (DALL-E), with Charbonnier's constant, over pooled cells."""
  x, y = pair(2, 8, 8, 3)
  bands = np.abs(np.asarray(haar(x - y), np.float64))
  assert sum(band.mean() for band in bands) == pytest.approx(4 * float(Wavelet()(x, y)), rel=1e-5)
  told = np.random.default_rng(1).normal(size=(2, 8, 8, 6)).astype(np.float32)
  u = 0.1 + 0.8 * (x.astype(np.float64) + 1) / 2
  mu, b = told[..., :3], np.exp(told[..., 3:])
  theirs = -np.log(np.exp(-np.abs(np.log(u / (1 - u)) - mu) / b) / (2 * b * u * (1 - u))).sum() / 2
  assert 8 * 8 * 3 * float(LogitLaplace()(x, told)) == pytest.approx(theirs, rel=1e-4)
  theirs = np.sqrt((x - y).astype(np.float64) ** 2 + 1e-6).mean()
  assert float(Charbonnier(eps=1e-3)(x, y)) + 1e-3 == pytest.approx(theirs, rel=1e-5)
  cells = (x - y).astype(np.float64).reshape(2, 2, 4, 2, 4, 3).mean((2, 4))
  assert float(LowPass(factor=4)(x, y)) == pytest.approx((cells**2).mean(), rel=1e-4)


def test_the_pairs_of_the_catalogue_are_twice_ours():
  """LTX-Video as catalogued: D softplus(-a) + softplus(b), G softplus(a) + softplus(-b), a = D([x, x_hat])."""

  class Fixed(nn.Module):
    @nn.compact
    def __call__(self, x, *, train):
      return Verdict(((x[..., 0] - 0.3 * x[..., 1]).mean(1, keepdims=True),))

  x, y = pair(3, 4, 1)
  a, b = ((u - 0.3 * v)[..., 0].mean(1).astype(np.float64) for u, v in ((x, y), (y, x)))
  soft = lambda v: np.log1p(np.exp(v)).mean()
  loss = PairAdversarial(discriminator=Fixed(), objective="nonsaturating")
  seen = Seen(x, x, y, None, None, None, {}, jnp.int32(0))
  assert 2 * float(loss.learn(seen, {}, aux=None, key=None).value) == pytest.approx(soft(-a) + soft(b), rel=1e-5)
  assert 2 * float(loss.measure(seen, {}, aux=None, key=None).value) == pytest.approx(soft(a) + soft(-b), rel=1e-5)
