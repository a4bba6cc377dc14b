"""The term for the direction of what is predicted (LightningDiT, arXiv:2501.01423)."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from latents.backbones import DiT
from latents.diffusion import Cosine, Linear, Process
from latents.diffusion.process import cosine
from latents.priors import FlowPrior
from latents.types import Latent
from tests.test_nn import normal, randomise

KEY = jax.random.key(0)


def test_the_angle_along_the_channels_has_known_values_and_a_tame_gradient_at_zero():
  a = jnp.array([[1.0, 0.0], [3.0, 0.0], [-2.0, 0.0], [0.0, 5.0], [1.0, 1.0]])
  assert np.allclose(cosine(a, jnp.array([2.0, 0.0])).ravel(), [1, 1, -1, 0, 0.5**0.5], atol=1e-6)
  x, y = normal(4, 3, 6), normal(4, 3, 6, seed=1)
  assert np.abs(cosine(7 * x, 0.1 * y) - cosine(x, y)).max() < 1e-5
  slope = jax.grad(lambda x: cosine(x, y).sum())(jnp.zeros_like(x))
  assert np.isfinite(slope).all() and np.linalg.norm(slope, axis=-1).max() < 1.001e3


@pytest.mark.parametrize(
  ("path", "predict", "compare"),
  [(Linear(), "velocity", None), (Cosine(), "noise", None), (Cosine(), "data", "velocity")],
)
def test_the_term_is_of_what_is_compared_and_stands_beside_the_squared_error(path, predict, compare):
  process = Process(path=path, predict=predict, compare=compare, direction=0.5)
  x0, eps, out = (normal(3, 4, 5, seed=i) for i in range(3))
  tau = jnp.array([0.2, 0.5, 0.8])
  x = path.mix(x0, eps, tau)
  found, plain = (
    p.terms(out, x0, eps, x, tau) for p in (process, Process(path=path, predict=predict, compare=compare))
  )
  assert list(found) == ["flow", "direction"] and list(plain) == ["flow"]
  assert np.array_equal(found["flow"][0], plain["flow"][0])
  kind = compare or predict
  made = path.convert(out, predict, kind, x, tau)
  target = eps if kind == "noise" else path.velocity(x0, eps, tau)
  expected = 1 - (made * target).sum(-1) / np.linalg.norm(made, axis=-1) / np.linalg.norm(target, axis=-1)
  assert np.abs(found["direction"][0][..., 0] - expected).max() < 1e-5
  assert found["direction"][1] == 0.5


def test_a_prior_has_the_term_with_its_weight_and_a_mask_leaves_tokens_out():
  z, eps = normal(2, 4, 4, 3), {"params": KEY, "prior": KEY}
  term = {}
  for weight in (1.0, 0.25):
    prior = FlowPrior(backbone=DiT(1, 16, 2, patch=1), process=Process(direction=weight))
    params = randomise(jax.eval_shape(lambda p=prior: p.init(eps, Latent(z=z), None, train=True, method="loss")))
    run = jax.jit(lambda latent, p=prior, w=params: p.apply(w, latent, None, train=True, method="loss", rngs=eps))
    term[weight] = run(Latent(z=z))["direction"]
    mask = jnp.ones((2, 4, 4)).at[:, 0].set(0.0)
    assert not np.allclose(run(Latent(z=z, mask=mask))["direction"], term[weight])
  assert np.allclose(term[0.25], 0.25 * term[1.0]) and 0 < term[1.0] < 2
