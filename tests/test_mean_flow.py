"""MeanFlow: its identity, its weights and its steps where the average velocity is known."""

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from latents.diffusion import Euler, Heun, Linear, Process
from latents.errors import UserError
from latents.nn.condition import labels
from latents.priors import FlowPrior, MeanFlow
from latents.priors.mean_flow import identity
from latents.types import Latent
from tests.test_nn import normal
from tests.test_priors import Exact

KEY = jax.random.key(0)
RNGS = {"prior": KEY, "dropout": KEY}
MEAN, STD = 0.5, 0.4  # what the field of `Exact` has without a label


def moved(x, t, r):
  """Where the flow of data N(MEAN, STD^2) on the linear path brings x from t to r: the marginals are Gaussian."""
  deviation = lambda t: jnp.sqrt((1 - t) ** 2 * STD**2 + t**2)
  return (1 - r) * MEAN + deviation(r) / deviation(t) * (x - (1 - t) * MEAN)


def velocity(x, t):
  return Exact().apply({}, x, t, None)


def average(x, r, t):
  """(x_t - x_r) / (t - r), and its limit where they are one."""
  r, t = (jnp.asarray(a).reshape(-1, *[1] * (x.ndim - 1)) for a in (r, t))
  apart = jnp.where(t > r, t - r, 1.0)
  return jnp.where(t > r, (x - moved(x, t, r)) / apart, velocity(x, t))


class Average(nn.Module):
  """The exact average velocity; it sees (t, t - r) / 1000."""

  classes: int = 0
  conditions = ()

  @nn.compact
  def __call__(self, x, t, cond, *, train: bool = False):
    t = 1000 * t
    return average(x, t[:, 0] - t[:, 1], t[:, 0])


class Rising(nn.Module):
  """weight (t - r), of what it sees: du / dt = weight where the rate is 1."""

  classes: int = 0
  conditions = ()

  @nn.compact
  def __call__(self, x, t, cond, *, train: bool = False):
    return self.param("weight", nn.initializers.constant(0.7), ()) * t[:, 1].reshape(-1, *[1] * (x.ndim - 1)) + 0 * x


class Said(nn.Module):
  """3 for examples with a label, 1 without."""

  classes: int = 3
  conditions = ("label",)

  @nn.compact
  def __call__(self, x, t, cond, *, train: bool = False):
    known = labels(cond, 3, len(x)) < 3
    return jnp.where(known, 3.0, 1.0).reshape(-1, *[1] * (x.ndim - 1)) + 0 * x


def loss(prior, variables, z, cond=None):
  return prior.apply(variables, Latent(z=z), cond, train=True, method="loss", rngs=RNGS)["mean_flow"]


def test_the_exact_average_fulfils_the_identity():
  with jax.enable_x64(True):
    rng = np.random.default_rng(0)
    x, r = jnp.asarray(rng.normal(size=(200, 3))), jnp.asarray(rng.uniform(0, 0.5, 200))
    t = r + jnp.asarray(rng.uniform(0.05, 0.5, 200))
    v = velocity(x, t)
    found, target = identity(average, x, r, t, v)
    assert np.abs(found - target).max() < 1e-10
    # the product with the Jacobian is the derivative along the flow
    h = 1e-5
    slope = (average(moved(x, t[:, None], t[:, None] + h), r, t + h) - found) / h
    assert np.abs(v - (t - r)[:, None] * slope - target).max() < 1e-4
    # and another function does not
    other, aim = identity(lambda x, r, t: average(x, r, t) + 0.1 * x, x, r, t, v)
    assert np.abs(other - aim).max() > 0.05


def test_where_both_times_are_one_the_target_is_the_velocity():
  x, t, v = normal(5, 3), jnp.linspace(0.1, 1, 5), normal(5, 3) + 1
  assert np.array_equal(identity(average, x, t, t, v)[1], v)


@pytest.mark.parametrize("steps", [1, 2, 5])
def test_steps_of_the_exact_average_end_where_the_flow_does(steps: int):
  options = {"shape": (64, 64), "count": 2, "method": "sample", "rngs": RNGS}
  z = MeanFlow(backbone=Average(), sampler=Euler(steps)).apply({}, None, **options).z
  exact = FlowPrior(Exact(), sampler=Heun(200)).apply({}, None, **options).z
  assert np.abs(z - exact).max() < 1e-3  # Heun's error
  assert abs(z.mean() - MEAN) < 0.02 and abs(z.std() - STD) < 0.01


def test_no_gradient_comes_through_the_target():
  """u = w (t - r), target v - (t - r) w: the value's slope in w is twice the gradient, as half of it is stopped."""
  prior, z = MeanFlow(backbone=Rising(), rate=1.0, equal=0.25, power=0.0), normal(64, 3)
  at = lambda w: {"params": {"backbone": {"weight": jnp.asarray(w)}}}
  gradient = jax.grad(lambda w: loss(prior, at(w), z))(0.7) / 3  # of the sum over 3 elements
  slope = (loss(prior, at(0.71), z) - loss(prior, at(0.69), z)) / 0.02
  assert float(gradient) == pytest.approx(float(slope) / 2, rel=1e-3) and abs(gradient) > 0.01


@pytest.mark.parametrize("power", [0.5, 1.0])
def test_the_gradient_is_weighed_by_the_error_and_the_value_is_not(power: float):
  z = normal(1, 6)
  value = lambda w, p: loss(
    MeanFlow(backbone=Rising(), rate=1.0, equal=0.0, power=p, floor=0.1), {"params": {"backbone": {"weight": w}}}, z
  )
  plain, slope = jax.value_and_grad(value)(0.7, 0.0)
  weighed, felt = jax.value_and_grad(value)(0.7, power)
  assert float(plain) == pytest.approx(float(weighed), rel=1e-6)
  assert float(felt) == pytest.approx(float(slope / (6 * plain + 0.1) ** power), rel=1e-5)


def test_guidance_is_mixed_into_the_velocity():
  """Without the pair's own velocity (omega 0): target = kappa u(c) + (1 - kappa) u(), where the label is known."""
  prior = MeanFlow(backbone=Said(), omega=0.0, kappa=0.2, equal=1.0, label_drop=0.0)
  z, cond = normal(4, 5), {"label": jnp.arange(4) % 3}
  assert float(loss(prior, {}, z, cond)) == pytest.approx((3 - 0.2 * 3 - 0.8 * 1) ** 2, rel=1e-6)
  outside = prior.clone(guided=(1.1, 1.2))
  plain = MeanFlow(backbone=Said(), equal=1.0, label_drop=0.0)
  assert np.isclose(loss(outside, {}, z, cond), loss(plain, {}, z, cond))
  dropped = {**cond, "drop": jnp.ones(4, bool)}
  evaluated = lambda prior: prior.apply({}, Latent(z=z), dropped, train=False, method="loss", rngs=RNGS)["mean_flow"]
  assert np.isclose(evaluated(prior), evaluated(plain))


def test_mistakes_are_one_clear_line():
  z = normal(2, 3)
  wrong = {
    "predicts and compares": MeanFlow(backbone=Average(), process=Process(Linear(), "noise")),
    "sampler is Euler, not Heun": MeanFlow(backbone=Average(), sampler=Heun(2)),
    "unconditional": MeanFlow(backbone=Average(), omega=2.0),
    r"in \[0, 1\)": MeanFlow(backbone=Average(), kappa=1.0),
  }
  for message, prior in wrong.items():
    with pytest.raises(UserError, match=message):
      loss(prior, {}, z)
  with pytest.raises(UserError, match="not Heun"):
    MeanFlow(backbone=Average(), sampler=Heun(2)).apply({}, None, shape=(3,), count=2, method="sample", rngs=RNGS)
