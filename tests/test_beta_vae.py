"""Objectives of the VAE against their closed forms: pPCA and its collapse, the learned scale, the capacity."""

import dataclasses
import math

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from latents.autoencoders import Autoencoder
from latents.bottlenecks import KL
from latents.decoders import Decoder
from latents.encoders import IdentityEncoder
from latents.errors import UserError
from latents.losses import L2, Capacity, Likelihood, Weight
from latents.train import objective
from latents.types import Seen
from tests import micro
from tests.test_bottlenecks import KEY, RNGS, rng_normal, start

VARIANCES = np.array([2.0, 1.4, 1.0, 0.7, 0.42, 0.3, 0.15, 0.05])  # of the data along their principal axes


class Linear(Decoder):
  """z -> x, an affine map."""

  @nn.compact
  def reconstruct(self, latent, *, train):
    return nn.Dense(len(VARIANCES))(latent.z)


MODEL = Autoencoder(IdentityEncoder(), KL(dim=len(VARIANCES), spread=0.5), Linear())


@jax.jit
def linear_vae(losses_weight):
  """The linear VAE trained on a Gaussian with L2 + weight * KL: (KL of each latent number, mean squared error)."""
  turn = jnp.linalg.qr(jax.random.normal(jax.random.key(5), (8, 8)))[0]
  draw = lambda key, n: (jax.random.normal(key, (n, 1, 8)) * jnp.sqrt(VARIANCES)) @ turn.T
  variables = MODEL.init({"params": KEY, "bottleneck": KEY}, draw(KEY, 2), train=True)
  optimizer = optax.adam(optax.cosine_decay_schedule(0.02, 3000))

  def loss(variables, key):
    x = draw(jax.random.fold_in(key, 0), 256)
    latent, decoded = MODEL.apply(variables, x, train=True, rngs={"bottleneck": jax.random.fold_in(key, 1)})
    return L2()(x, decoded.x) + losses_weight * latent.terms["kl"]

  def update(carry, key):
    variables, opt = carry
    updates, opt = optimizer.update(jax.grad(loss)(variables, key), opt)
    return (optax.apply_updates(variables, updates), opt), None

  (variables, _), _ = jax.lax.scan(update, (variables, optimizer.init(variables)), jax.random.split(KEY, 3000))
  x = draw(jax.random.key(9), 20_000)
  mean, std = jnp.split(MODEL.apply(variables, x, method="store"), 2, -1)
  kl = 0.5 * (mean**2 + std**2 - 1 - 2 * jnp.log(std)).mean((0, 1))
  _, decoded = MODEL.apply(variables, x, train=True, rngs={"bottleneck": jax.random.key(3)})
  return jnp.sort(kl)[::-1], jnp.square(x - decoded.x).mean()


@pytest.mark.parametrize("weight", [0.2, 1.0, 3.0])
def test_linear_vaes_collapse_where_ppca_says(weight):
  """beta v = weight N_x / 2 N_z is the water level: an axis is in use iff its variance is above it (Lucas et al. 2019,
  arXiv:1911.02469), its rate log(variance / level) / 2, and the distortion of the others their own variance."""
  level = weight * 8 / (2 * 8)
  kl, error = linear_vae(weight)
  rate = np.maximum(0.5 * np.log(VARIANCES / level), 0)
  assert (np.asarray(kl) > 0.01).sum() == (level < VARIANCES).sum()
  np.testing.assert_allclose(kl, rate, atol=0.04)
  np.testing.assert_allclose(error, np.minimum(VARIANCES, level).mean(), rtol=0.05)


# -- the variance of the latent


def test_a_uniform_variance_is_that_of_all_channels():
  module, h = KL(dim=5, variance="uniform"), rng_normal(2, 4, 6)
  variables = start(module, h)
  assert variables["params"]["project"]["kernel"].shape == (6, 6)  # the mean of five channels and one variance
  mean, std = module.posterior(module.apply(variables, h, method="store"))
  assert mean.shape == std.shape == (2, 4, 5) and np.unique(std[0, 0]).size == 1 and np.unique(std).size == 8
  out = h @ variables["params"]["project"]["kernel"] + variables["params"]["project"]["bias"]
  np.testing.assert_allclose(std[..., 0], np.exp(0.5 * out[..., 5]), rtol=1e-5)
  closed = 0.5 * (mean**2 + std**2 - 1 - 2 * np.log(std))
  np.testing.assert_allclose(module.apply(variables, h, train=True, rngs=RNGS).terms["kl"], closed.mean(), rtol=1e-5)


def test_a_constant_variance_is_the_spread():
  module, h = KL(dim=3, spread=0.5, variance="constant"), rng_normal(2, 4, 6)
  variables = start(module, h)
  assert variables["params"]["project"]["kernel"].shape == (6, 3)
  mean, std = module.posterior(module.apply(variables, h, method="store"))
  np.testing.assert_allclose(std, np.full((2, 4, 3), 0.5), rtol=1e-6)
  latent = module.apply(variables, h, train=True, rngs=RNGS)
  np.testing.assert_allclose(latent.terms["kl"], 0.5 * (jnp.square(mean).mean() + 0.25 - 1 - math.log(0.25)), rtol=1e-5)
  noise = np.asarray((latent.z - mean) / 0.5).ravel()
  assert 0.5 < noise.std() < 1.6
  still = KL(dim=3, spread=math.exp(-15), variance="constant")  # LTX's: a deterministic code
  np.testing.assert_allclose(still.apply(variables, h, train=True, rngs=RNGS).z, mean, atol=1e-5)


def test_variances_that_cannot_be_are_one_line():
  with pytest.raises(UserError, match="spread of a KL latent is 0"):
    start(KL(dim=3, spread=0.0, variance="constant"), rng_normal(1, 2, 3))
  with pytest.raises(UserError, match="5 channels want 6 features, not 10"):
    start(KL(dim=5, variance="uniform", projected=False), rng_normal(1, 2, 10))


# -- the learned scale, the capacity


@pytest.mark.parametrize("kind", ["gaussian", "laplace"])
def test_the_likelihood_is_the_density_and_its_scale_the_error(kind):
  loss, x, x_hat = Likelihood(kind=kind), rng_normal(4, 5, 3), rng_normal(4, 5, 3, seed=2)
  seen = Seen(x, x, x_hat, None, None, None, {}, jnp.zeros((), jnp.int32))
  own = loss.init(KEY, seen, aux=None)

  def value(scale):
    return loss.measure(seen, {"params": {"log_scale": jnp.log(scale)}}, aux=None, key=KEY)

  grid = jnp.linspace(-30, 30, 60_001)
  density = jax.vmap(lambda t: jnp.exp(-loss.measure(
    seen.replace(target=t[None], x_hat=jnp.zeros(1)), {"params": {"log_scale": jnp.log(0.7)}}, aux=None, key=KEY
  ).value))(grid)  # fmt: skip
  np.testing.assert_allclose(jnp.trapezoid(density, grid), 1.0, rtol=1e-4)
  d = np.asarray(x - x_hat)
  best = math.sqrt((d**2).mean()) if kind == "gaussian" else np.abs(d).mean()  # v* = mean squared error
  assert abs(float(jax.grad(lambda s: value(s).value)(best))) < 1e-5
  assert value(best).value < value(1.1 * best).value and value(best).value < value(0.9 * best).value
  assert float(own["params"]["log_scale"]) == 0.0 and float(value(0.7).logs["scale"]) == pytest.approx(0.7)


def test_the_learned_scale_is_trained_beside_the_model():
  made = micro.experiment(gan=False)
  one = dataclasses.replace(made.stage1, losses={"nll": Likelihood(), "kl": Weight(1e-3)})
  batch = {"x": jnp.tanh(rng_normal(8, 16, 16, 1)), "index": jnp.arange(8), "mask": jnp.ones(8, bool)}
  state = micro.first_state(one, {}, batch)
  assert state.params["nll"]["log_scale"].shape == ()
  new, logs = micro.update(one, state, {}, batch)
  wanted = 0.5 * math.log(2 * math.pi)  # of x_hat, whose error at s = 1 counts half
  assert float(logs["scale"]) == 1.0 and float(logs["nll"]) > wanted and float(new.params["nll"]["log_scale"]) != 0.0


def test_capacity_holds_the_rate_at_a_target_that_grows():
  losses = {"kl": Capacity(weight=3.0, capacity=2.0, rise=10), "commit": Weight(0.5)}
  for step, rate, wanted in ((0, 0.5, 1.5), (5, 0.5, 1.5), (10, 0.5, 4.5), (99, 2.5, 1.5), (99, 2.0, 0.0)):
    total = objective.total({"kl": jnp.float32(rate), "commit": jnp.float32(4.0)}, losses, jnp.asarray(step))
    np.testing.assert_allclose(total, wanted + 2.0, rtol=1e-6)
  slope = jax.grad(lambda kl: objective.total({"kl": kl}, losses, jnp.asarray(10)))
  assert float(slope(1.0)) == -3.0 and float(slope(3.0)) == 3.0  # below the target the rate is pushed up
