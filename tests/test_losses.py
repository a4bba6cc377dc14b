"""Losses: hand values, zero at equality, finite gradients everywhere, schedules, adaptive weight."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from latents.autoencoders import Autoencoder
from latents.bottlenecks import KL
from latents.decoders import ConvDecoder, LogitLaplaceDecoder
from latents.encoders import ConvEncoder
from latents.errors import UserError
from latents.losses import (
  L1,
  L2,
  Adversarial,
  Capacity,
  Charbonnier,
  Huber,
  LogitLaplace,
  LowPass,
  LPIPSLoss,
  MultiScaleSTFT,
  Perceptual,
  Wavelet,
  Weight,
)
from latents.nn.wavelet import haar, unhaar
from tests import micro
from tests.members.losses import DISTRIBUTION_LOSSES, LOSSES

BY_NAME = pytest.mark.parametrize(("make", "shape"), [m[1:] for m in LOSSES], ids=[m[0] for m in LOSSES])


def signal(shape: tuple[int, ...], seed: int = 0) -> jax.Array:
  return jnp.asarray(np.tanh(np.random.default_rng(seed).normal(size=(2, *shape))), jnp.float32)


def randomly(tree):
  """Parameters for shapes; small, so that activations stay within the networks' usual range."""
  leaves, structure = jax.tree.flatten(tree)
  draw = [0.1 * np.random.default_rng(i).normal(size=x.shape).astype(x.dtype) for i, x in enumerate(leaves)]
  return jax.tree.unflatten(structure, draw)


@BY_NAME
def test_every_loss_is_a_mean_that_vanishes_at_equality(make, shape):
  loss = make()
  aux, x, y = randomly(loss.abstract()), signal(shape), signal(shape, 1)
  value = jax.jit(lambda x, y, aux: loss(x, y, aux=aux))
  assert value(x, y, aux).shape == ()
  assert value(x, y, aux).dtype == jnp.float32
  assert float(value(x, x, aux)) == pytest.approx(0, abs=1e-7)
  assert float(value(x, y, aux)) > 0
  each = [float(value(jnp.stack([x[i]] * 2), jnp.stack([y[i]] * 2), aux)) for i in range(2)]
  assert np.mean(each) == pytest.approx(float(value(x, y, aux)), rel=1e-5)


@BY_NAME
def test_every_gradient_is_finite_also_at_equality(make, shape):
  loss = make()
  aux, x, y = randomly(loss.abstract()), signal(shape), signal(shape, 1)
  grad = jax.jit(jax.grad(lambda x_hat: loss(x, x_hat, aux=aux)))
  assert np.isfinite(grad(x)).all()
  assert float(jnp.abs(grad(y)).sum()) > 0


@BY_NAME
def test_every_loss_is_a_value(make, shape):
  assert make() == make()
  assert hash(make()) == hash(make())
  assert dataclasses.replace(make(), weight=0.5).weight == 0.5


def test_spectra_are_those_of_the_sums_of_the_definition():
  """Every number of the STFT as its sum over one windowed frame, in float64."""
  rng, floor = np.random.default_rng(0), 1e-3
  x, y = rng.uniform(-1, 1, (2, 2, 50, 2))
  expected = []
  for window in (8, 32):
    hann = np.array([0.5 - 0.5 * np.cos(2 * np.pi * n / window) for n in range(window)])
    wave = np.exp(-2j * np.pi * np.outer(np.arange(window // 2 + 1), np.arange(window)) / window) * hann / hann.sum()
    frames = range(0, 50 - window + 1, window // 4)
    s, t = (np.stack([np.abs(np.einsum("kn,bnc->bkc", wave, v[:, i : i + window])) for i in frames]) for v in (x, y))
    expected.append(np.abs(s - t).mean() + np.abs(np.log(s + floor) - np.log(t + floor)).mean())
  loss = MultiScaleSTFT(windows=(8, 32, 64), floor=floor)
  assert float(loss(jnp.float32(x), jnp.float32(y))) == pytest.approx(np.mean(expected), rel=1e-5)
  assert float(MultiScaleSTFT(windows=(64,))(jnp.float32(x), jnp.float32(y))) == 0  # nothing is as long as that


def test_regression_by_hand():
  x, y = jnp.array([[[0.0], [1.0]]]), jnp.array([[[0.5], [-1.0]]])
  assert float(L1()(x, y)) == 1.25
  assert float(L2()(x, y)) == 2.125


def test_round_regressions_by_hand():
  x, y = jnp.array([[[0.0], [1.0]]]), jnp.array([[[0.5], [-1.0]]])  # |d| = 0.5, 2
  assert float(Huber(delta=1.0)(x, y)) == (0.125 + 1.5) / 2
  assert float(Huber(delta=0.5)(x, y)) == (0.125 + 0.5 * 1.75) / 2
  assert float(Huber(delta=9.0)(x, y)) == 0.5 * float(L2()(x, y))
  np.testing.assert_allclose(jax.grad(lambda y: Huber()(x, y))(y)[0, :, 0], [0.25, -0.5])
  assert float(Charbonnier(eps=1.0)(x, y)) == pytest.approx((1.25**0.5 + 5**0.5) / 2 - 1, rel=1e-6)
  assert float(Charbonnier(eps=1e-6)(x, y)) == pytest.approx(float(L1()(x, y)), abs=2e-6)


def test_the_best_constants_are_mean_median_and_between():
  """Of the numbers 0, 0, 0, 0.2, 1: the constant that each loss likes best, on a grid."""
  x, grid = jnp.array([0.0, 0.0, 0.0, 0.2, 1.0]).reshape(1, 5, 1), np.linspace(0, 1, 1001)
  best = lambda loss: grid[int(jnp.argmin(jax.vmap(lambda c: loss(x, c * jnp.ones_like(x)))(jnp.asarray(grid))))]
  assert best(L1()) == 0 and best(L2()) == pytest.approx(0.24)
  assert best(Charbonnier(eps=1e-3)) == pytest.approx(0, abs=2e-3)
  assert best(Huber(delta=0.1)) == pytest.approx(0.2 / 3, abs=1.1e-3)  # 3 c = 0.1 + 0.1


def test_the_low_pass_is_blind_to_what_averages_out():
  x = signal((8, 8, 3))
  board = jnp.asarray((-1.0) ** np.add.outer(np.arange(8), np.arange(8)))[None, :, :, None]
  assert float(LowPass(factor=4)(x, x + board)) == pytest.approx(0, abs=1e-10)
  assert float(LowPass(factor=4)(x, x + 0.5)) == pytest.approx(0.25, rel=1e-5)
  assert float(LowPass(factor=1)(x, signal((8, 8, 3), 1))) == pytest.approx(float(L2()(x, signal((8, 8, 3), 1))))
  with pytest.raises(UserError, match="3 does not divide a signal of 8x8"):
    LowPass(factor=3)(x, x)


@pytest.mark.parametrize("shape", [(12, 2), (8, 6, 3), (4, 6, 8, 1)], ids=["1-D", "2-D", "3-D"])
def test_haar_is_orthonormal_and_comes_back(shape):
  x = signal(shape)
  bands = haar(x)
  assert bands.shape == (2 ** (len(shape) - 1), 2, *(n // 2 for n in shape[:-1]), shape[-1])
  np.testing.assert_allclose(unhaar(bands), x, atol=1e-6)
  assert float(jnp.square(bands).sum()) == pytest.approx(float(jnp.square(x).sum()), rel=1e-6)  # Parseval
  flat = haar(jnp.ones_like(x))
  assert float(jnp.abs(flat[1:]).max()) == 0 and float(flat[0].max()) == pytest.approx(2 ** ((len(shape) - 1) / 2))
  ramp = jnp.arange(2.0 * shape[0]).reshape(2, shape[0], *(1,) * (len(shape) - 1)) * jnp.ones_like(x)
  found = haar(ramp)  # changes along the first axis alone: low, and the band with the highest bit
  assert [bool(jnp.abs(b).max() > 1e-6) for b in found] == [i in (0, len(found) // 2) for i in range(len(found))]


def test_wavelets_weigh_high_frequencies_more_from_two_levels_on():
  x = jnp.zeros((1, 8, 8, 1))
  board = jnp.asarray((-1.0) ** np.add.outer(np.arange(8), np.arange(8)))[None, :, :, None]
  for levels in (1, 2, 3):
    loss = Wavelet(levels=levels)
    assert float(loss(x, x + 0.4)) == pytest.approx(0.4 / 2**levels, rel=1e-6)
    assert float(loss(x, x + 0.4 * board)) == pytest.approx(0.4 / 2, rel=1e-6)
  y = signal((8, 8, 3))
  assert float(Wavelet()(y[:1], y[1:])) == pytest.approx(float(jnp.abs(haar(y[:1] - y[1:])).mean()), rel=1e-6)
  with pytest.raises(UserError, match="8 does not divide a signal of 8x12"):
    Wavelet(levels=3)(jnp.zeros((1, 8, 12, 1)), jnp.zeros((1, 8, 12, 1)))


@pytest.mark.parametrize(("make", "shape", "each"), [m[1:] for m in DISTRIBUTION_LOSSES])
def test_losses_of_distributions_are_means_with_finite_gradients(make, shape, each):
  loss, x = make(), signal(shape)
  told = jnp.asarray(np.random.default_rng(2).normal(size=(2, *shape[:-1], each * shape[-1])), jnp.float32)
  value = loss(x, told)
  assert value.shape == () and value.dtype == jnp.float32
  assert np.mean([float(loss(x[i : i + 1], told[i : i + 1])) for i in range(2)]) == pytest.approx(
    float(value), rel=1e-5
  )
  assert np.isfinite(jax.grad(lambda t: loss(x, t))(told)).all()
  for edge in (-1.0, 1.0):
    assert np.isfinite(loss(edge * jnp.ones_like(x), told))
  with pytest.raises(UserError, match="2C"):
    loss(x, told[..., :-1])


@pytest.mark.parametrize(("mu", "log_b"), [(0.0, 0.0), (1.3, -1.0), (-2.0, 0.7)])
def test_logit_laplace_integrates_to_one(mu, log_b):
  """Over y in (0,1); the loss takes the signal u of y = 0.8 (u + 1) / 2 + 0.1. Beyond logits of 8 the integral's two
  exponential tails, where float32 has too few numbers near y = 1."""
  logit, b = np.linspace(-8, 8, 20_001), np.exp(log_b)
  y = 1 / (1 + np.exp(-logit))
  x = jnp.asarray(2 * (y - 0.1) / 0.8 - 1, jnp.float32).reshape(-1, 1, 1)
  told = jnp.broadcast_to(jnp.array([mu, log_b]), (len(x), 1, 2))
  nats = jax.jit(jax.vmap(lambda a, t: LogitLaplace()(a[None], t[None])))(x, told)
  within = np.trapezoid(np.exp(-np.asarray(nats, np.float64)), y)
  tails = 0.5 * np.exp(-(8 - mu) / b) + 0.5 * np.exp(-(8 + mu) / b)
  assert within + tails == pytest.approx(1, abs=2e-4)


def test_the_likelihood_reads_what_the_decoder_has_sown_and_others_see_its_picture():
  """A step with both; a wrong path is said; the best scale of one pixel is the distance of the logits."""
  made = micro.experiment(gan=False).stage1
  inner = ConvDecoder(ch=4, mult=(1, 2), blocks=1, channels=2, mid_attention=False)
  model = Autoencoder(
    encoder=ConvEncoder(ch=4, mult=(1, 2), blocks=1, out=4, mid_attention=False),
    bottleneck=KL(dim=2),
    decoder=LogitLaplaceDecoder(inner),
  )
  losses = {"nats": LogitLaplace(weight=0.1), "l2": L2(), "kl": Weight(1e-3)}
  stage = dataclasses.replace(made, model=model, losses=losses, batch=2)
  x = signal((8, 8, 1))
  batch, frozen = {"x": x, "index": jnp.arange(2)}, {"losses": {}, "fixed": {}}
  state = jax.jit(lambda b: micro.first_state(stage, frozen, b))(batch)
  _, logs = jax.jit(lambda s, b: micro.update(stage, s, frozen, b))(state, batch)
  assert np.isfinite(float(logs["nats"])) and float(logs["grad_ae"]) > 0
  far = dataclasses.replace(stage, losses={**losses, "nats": LogitLaplace(path="elsewhere")})
  with pytest.raises(UserError, match="elsewhere/logit_laplace"):
    jax.eval_shape(lambda b: micro.first_state(far, frozen, b), batch)
  told = jnp.concatenate([jnp.zeros((1, 1, 1)), jnp.zeros((1, 1, 1))], -1)
  logit = lambda u: jnp.log(0.4 * (u + 1) + 0.1) - jnp.log(0.9 - 0.4 * (u + 1))
  scales = jnp.linspace(-3, 1, 401)
  nats = jax.vmap(lambda s: LogitLaplace()(jnp.full((1, 1, 1), 0.5), told.at[..., 1].set(s)))(scales)
  assert float(jnp.exp(scales[jnp.argmin(nats)])) == pytest.approx(float(jnp.abs(logit(0.5))), rel=0.02)


def test_perceptual_layers_are_averaged():
  x, y = signal((32, 32, 3)), signal((32, 32, 3), 1)
  aux = randomly(Perceptual().abstract())
  all_ = ((0,), (3,), (0, 3))
  *single, both = jax.jit(lambda x, y, aux: [Perceptual(layers=i)(x, y, aux=aux) for i in all_])(x, y, aux)
  assert float(both) == pytest.approx(np.mean(single), rel=1e-5)
  assert all(0 < v <= 4 for v in single)


def test_the_perceptual_gradient_runs_through_the_reconstruction_alone():
  """One convolution forward for each of the two signals, one back: none on both signals at once."""
  loss, x = Perceptual(layers=(0, 1)), signal((32, 32, 3))
  aux = loss.abstract()
  with micro.on_tpu():  # for a CPU, convolutions of one tap are products
    forward = jax.make_jaxpr(lambda y, aux: loss(x, y, aux=aux))(x, aux)
    both = jax.make_jaxpr(jax.grad(lambda y, aux: loss(x, y, aux=aux)))(x, aux)
  rows = [convolved(made.jaxpr) for made in (forward, both)]
  assert set(rows[0] + rows[1]) == {len(x)}
  layers = len(rows[0]) // 2
  back = 1 + 1 + 2 + 2  # stem; block 0: project; blocks 1 and 2: expand, project; depthwise ones lie in branches
  assert len(rows[1]) - len(rows[0]) == back and layers > back  # the stages above are not walked back


@pytest.mark.parametrize(("net", "layers"), [("vgg", 13), ("squeeze", 25)])
def test_the_gradient_of_lpips_runs_through_the_reconstruction_alone(net, layers):
  """Every layer forward for each of the two signals, and once back; none on both signals at once."""
  loss, x = LPIPSLoss(net=net), signal((32, 32, 3))
  with micro.on_tpu():
    rows = convolved(jax.make_jaxpr(jax.grad(lambda y, aux: loss(x, y, aux=aux)))(x, loss.abstract()).jaxpr)
  assert set(rows) == {len(x)} and len(rows) == 3 * layers


def convolved(jaxpr) -> list[int]:
  """The batch of every convolution in a jaxpr."""
  rows = []
  for equation in jaxpr.eqns:
    inner = [v for v in equation.params.values() if hasattr(v, "jaxpr") or hasattr(v, "eqns")]
    rows += [n for v in inner for n in convolved(getattr(v, "jaxpr", v))]
    if equation.primitive.name == "conv_general_dilated":
      rows.append(equation.invars[0].aval.shape[0])
  return rows


def test_missing_weights_are_said_at_load():
  with pytest.raises(UserError):
    LPIPSLoss(path="/nowhere.npz").load()


def test_weight_computes_nothing():
  with pytest.raises(TypeError):
    Weight(1e-6)(jnp.zeros(1), jnp.zeros(1))
  assert Weight().load() is None
  assert [float(Weight(start=3).gate(jnp.array(s))) for s in (2, 3)] == [0, 1]


def test_weights_that_rise_and_fall():
  steps = jnp.array([0, 4, 5, 6, 8, 9, 13, 99])

  def factors(**fields):
    return [float(Weight(7.0, **fields).counted(jnp.float32(2.0), step)) / 2 for step in steps]  # the weight is outside

  assert factors() == factors(first=3.0) == factors(over=0, first=0.0) == [1.0] * 8
  np.testing.assert_allclose(factors(first=3.0, over=8), [3, 2, 1.75, 1.5, 1, 1, 1, 1], rtol=1e-6)
  np.testing.assert_allclose(factors(first=0.0, over=8, start=5), [0, 0, 0, 0.125, 0.375, 0.5, 1, 1], atol=1e-6)
  half = [0.5 - 0.5 * np.cos(np.pi * share) for share in (0, 4 / 8, 5 / 8, 6 / 8, 1, 1, 1, 1)]
  np.testing.assert_allclose(factors(first=0.0, over=8, shape="cosine"), half, atol=1e-6)
  held = Capacity(1.0, first=0.0, over=4, capacity=3.0)
  np.testing.assert_allclose([float(held.counted(jnp.float32(1.0), s)) for s in (0, 1, 4)], [0, 0.5, 2])


def test_hinge_by_hand():
  gan = Adversarial()
  real, fake = jnp.array([[2.0, 0.5], [-1.0, 0.0]]), jnp.array([[-2.0, -0.5], [1.0, 0.0]])
  loss, logs = gan.discriminate(real, fake)
  assert float(loss) == 0.5 * ((0 + 0.5 + 2 + 1) / 4 + (0 + 0.5 + 2 + 1) / 4)
  assert {k: float(v) for k, v in logs.items()} == {
    "real_accuracy": 0.5, "fake_accuracy": 0.5, "real_logit": 0.375, "fake_logit": -0.375
  }  # fmt: skip
  assert float(gan.generator(fake)) == 0.375
  beyond = jax.grad(lambda r: gan.discriminate(r, fake)[0])(real)
  np.testing.assert_array_equal(beyond, [[0, -0.125], [-0.125, -0.125]])  # none beyond the margin


def test_gates():
  gan = Adversarial(start=10, ramp=4, lead=3)
  steps = jnp.array([0, 9, 10, 11, 13, 100])
  np.testing.assert_allclose(gan.gate(steps), [0, 0, 0.25, 0.5, 1, 1])
  np.testing.assert_array_equal(gan.learn_gate(jnp.array([6, 7, 10])), [0, 1, 1])
  np.testing.assert_array_equal(Adversarial(start=2).gate(jnp.array([1, 2, 3])), [0, 1, 1])


def test_adaptive_weight_makes_the_gradients_equal():
  gan = Adversarial()
  rec, adv = jnp.array([[3.0, 4.0]]), jnp.array([[0.0, 0.5]])
  weight = gan.adaptive_weight(rec, adv)
  assert float(weight) == pytest.approx(5 / 0.5001)
  assert float(Adversarial(clamp=2.0).adaptive_weight(rec, adv)) == 2.0
  assert float(gan.adaptive_weight(rec, jnp.zeros((1, 2)))) == pytest.approx(1e4)
  assert float(gan.adaptive_weight(jnp.zeros((1, 2)), adv)) == 0
  constant = jax.grad(lambda r: gan.adaptive_weight(r, adv))(rec)
  np.testing.assert_array_equal(constant, 0)


def test_adversarial_is_not_a_pixel_loss():
  with pytest.raises(TypeError):
    Adversarial()(jnp.zeros(1), jnp.zeros(1))
