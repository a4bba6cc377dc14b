"""Losses of flow priors that weigh levels and scales: what they are of exact answers."""

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from latents.diffusion import Betas, Cosine, Exploding, Process
from latents.errors import UserError
from latents.nn.conv import halved
from latents.priors import FlowPrior, MultiScaleFlow, UncertainFlow
from latents.types import Latent
from tests.test_nn import KEY, normal

RNGS = {"prior": KEY}


class Told(nn.Module):
  """u(t) = log of a given number, and a parameter that is added."""

  value: float

  @nn.compact
  def __call__(self, t):
    return jnp.full(t.shape, jnp.log(self.value)) + self.param("shift", nn.initializers.zeros, ())


class Wrong(nn.Module):
  """0.3 x + 0.1: some network."""

  conditions = ()
  classes: int = 0

  @nn.compact
  def __call__(self, x, t, cond, *, train: bool = False):
    return 0.3 * x + 0.1 + 0 * self.param("none", nn.initializers.zeros, ())


def loss(prior, z, params=None):
  if params is None:
    params = prior.init({"params": KEY, **RNGS}, Latent(z=z), None, train=True, method="loss")
  return prior.apply(params, Latent(z=z), None, train=True, method="loss", rngs=RNGS)["flow"], params


def test_the_uncertain_loss_is_least_at_the_logarithm_of_the_plain_one():
  z, process = normal(64, 4, 4, 3), Process(Exploding(), "edm", data_std=1.0)
  plain = float(loss(FlowPrior(Wrong(), process=process), z)[0])
  made = UncertainFlow(backbone=Wrong(), process=process, uncertainty=Told(plain))
  value, params = loss(made, z)
  assert float(value) == pytest.approx(1 + np.log(plain), rel=1e-5)
  slope = jax.grad(lambda p: loss(made, z, p)[0])(params)["params"]["uncertainty"]["shift"]
  assert abs(float(slope)) < 1e-5
  other = UncertainFlow(backbone=Wrong(), process=process, uncertainty=Told(2 * plain))
  assert float(loss(other, z)[0]) == pytest.approx(0.5 + np.log(2 * plain), rel=1e-5)


@pytest.mark.parametrize(
  "process", [Process(), Process(Cosine(), "velocity", "noise"), Process(Betas(), "noise", "data")], ids=str
)
def test_scales_compare_the_means_of_what_is_compared(process):
  """By hand: the estimate in the units that are compared, then means over cells, then squares."""
  z, eps = normal(4, 8, 8, 2), normal(4, 8, 8, 2, seed=1)
  tau = jnp.array([0.2, 0.5, 0.7, 0.9])
  x, out = process.path.mix(z, eps, tau), normal(4, 8, 8, 2, seed=2)
  prior = MultiScaleFlow(backbone=Wrong(), process=process, least=2)
  found = prior._errors(out, z, eps, x, tau)["flow"][0].mean()
  kind = process.compare or process.predict
  estimate = process.path.convert(out, process.predict, kind, x, tau)
  target = {"data": z, "noise": eps}.get(kind)
  difference = estimate - (process.path.velocity(z, eps, tau) if target is None else target)
  wanted = 0
  for weight in (1 / 4, 1 / 2, 1):
    wanted += weight * np.square(difference).mean()
    difference = halved(difference)
  assert float(found) == pytest.approx(float(wanted), rel=1e-4)


def test_one_scale_is_the_plain_loss():
  z = normal(4, 8, 8, 2)
  assert float(loss(MultiScaleFlow(backbone=Wrong(), least=8), z)[0]) == pytest.approx(
    float(loss(FlowPrior(Wrong()), z)[0]), rel=1e-6
  )


def test_the_noise_that_is_averaged_has_half_the_deviation():
  noise = normal(16, 64, 64, 1)
  assert float(halved(noise).std()) == pytest.approx(0.5, rel=0.01)


def test_sides_that_do_not_lead_there_are_one_clear_line():
  for z in (normal(2, 12, 12, 1), normal(2, 4, 4, 1)):
    with pytest.raises(UserError, match="not a power of two times 8"):
      loss(MultiScaleFlow(backbone=Wrong(), least=8), z)
  with pytest.raises(UserError, match="no learned variance"):
    MultiScaleFlow(backbone=Wrong(), process=Process(Betas(), "noise", variance="learned"))._errors(
      *[normal(1, 8, 8, 2)] * 4, jnp.ones(1)
    )
