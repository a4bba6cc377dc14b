"""Losses: hand values, zero at equality, finite gradients everywhere, schedules, adaptive weight."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from latents.errors import UserError
from latents.losses import L1, L2, Adversarial, LPIPSLoss, MultiScaleSTFT, Perceptual, Weight
from tests.members.losses import LOSSES

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
  forward = jax.make_jaxpr(lambda y, aux: loss(x, y, aux=aux))(x, aux)
  both = jax.make_jaxpr(jax.grad(lambda y, aux: loss(x, y, aux=aux)))(x, aux)
  rows = [convolved(made.jaxpr) for made in (forward, both)]
  assert set(rows[0] + rows[1]) == {len(x)}
  layers = len(rows[0]) // 2
  back = 1 + 1 + 2 + 2  # stem; block 0: project; blocks 1 and 2: expand, project; depthwise ones lie in branches
  assert len(rows[1]) - len(rows[0]) == back and layers > back  # the stages above are not walked back


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
