"""Shortcut models: steps that are two steps, what is learned from what, and the numbers of steps that can be served."""

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from latents.backbones import DiT
from latents.diffusion import Euler, Heun
from latents.errors import UserError
from latents.nn.condition import labels
from latents.priors import FlowPrior, Shortcut
from latents.priors.shortcut import composed
from latents.types import Latent
from tests.test_consistency import Scaled
from tests.test_mean_flow import MEAN, STD, average, moved
from tests.test_nn import normal
from tests.test_priors import Exact

KEY = jax.random.key(0)
RNGS = {"prior": KEY, "dropout": KEY}
FINEST = 16


class Steps(nn.Module):
  """The exact velocity of a step d; d = 0 stands for the finest. Plus `off` for all steps of length 0."""

  classes: int = 0
  off: float = 0.0
  conditions = ()

  @nn.compact
  def __call__(self, x, t, cond, *, train: bool = False):
    tau, d = t[:, 0], t[:, 1]
    off = jnp.where(d == 0, self.off, 0.0).reshape(-1, *[1] * (x.ndim - 1))
    return average(x, tau - jnp.where(d == 0, 1 / FINEST, d), tau) + off


class Flow(nn.Module):
  """The exact velocity, whatever the step."""

  classes: int = 0
  conditions = ()

  @nn.compact
  def __call__(self, x, t, cond, *, train: bool = False):
    return Exact().apply({}, x, t[:, 0], None)


def made(backbone, **fields) -> Shortcut:
  return Shortcut(backbone=backbone, **{"finest": FINEST, "decay": 0.0, **fields})


def loss(prior, variables, z, cond=None, **options):
  return prior.apply(variables, Latent(z=z), cond, train=True, method="loss", rngs=RNGS, **options)


@pytest.mark.parametrize("d", [0.5, 0.25, 1 / 64])
def test_two_exact_steps_are_the_exact_step_of_twice_the_length(d: float):
  with jax.enable_x64(True):
    x = jnp.asarray(np.random.default_rng(0).normal(size=(100, 3)))
    tau, d = jnp.linspace(2 * d, 1, 100), jnp.full(100, d)
    found = composed(lambda x, tau, d: average(x, tau - d, tau), x, tau, d)
    assert np.abs(found - average(x, tau - 2 * d, tau)).max() < 1e-10
    assert np.abs(x - 2 * d[:, None] * found - moved(x, tau[:, None], (tau - 2 * d)[:, None])).max() < 1e-10


def test_the_exact_steps_have_no_error_and_others_have():
  z = MEAN + STD * normal(64, 8)
  assert float(loss(made(Steps()), {}, z)["shortcut"]) < 1e-10
  assert float(loss(made(Steps(off=0.5)), {}, z)["shortcut"]) > 1e-3  # felt where 2 / finest is learned from it
  assert float(loss(made(Flow()), {}, z)["shortcut"]) > 1e-3  # a flow knows of no steps


def test_errors_are_weighed_by_their_share_of_the_batch():
  """A network that gives 0: the flow's error is |v|^2 of its examples, the steps' target is 0."""
  params = {"params": {"backbone": {"weight": jnp.asarray(0.0)}}}
  z = 3.0 + normal(400, 20)  # E |v|^2 = 1 + 9 + 1
  for share in (0.25, 0.5):
    terms = loss(made(Scaled(), share=share), params, z)
    assert float(terms["flow"]) == pytest.approx((1 - share) * 11, rel=0.05) and float(terms["shortcut"]) == 0.0
  assert set(loss(made(Scaled()), params, z[:1])) == {"flow"}
  masked = lambda mask: made(Scaled()).apply(
    params, Latent(z=normal(4, 6, 3), mask=mask), None, train=True, method="loss", rngs=RNGS
  )
  keep = jnp.tile(jnp.arange(6) < 2, (4, 1))
  assert np.isclose(masked(None)["flow"], (2 * masked(keep)["flow"] + 4 * masked(~keep)["flow"]) / 6, rtol=1e-5)


def test_lengths_are_powers_of_two_and_times_their_multiples():
  tau, d = (np.asarray(a) for a in made(Scaled()).apply({}, 1000, method="_steps", rngs=RNGS))
  assert sorted(set(d.tolist())) == [1 / 16, 1 / 8, 1 / 4, 1 / 2]
  assert (tau >= 2 * d).all() and (tau <= 1).all() and np.array_equal(tau / (2 * d), np.round(tau / (2 * d)))
  assert len(set(tau[d == 1 / 16].tolist())) == 8


def test_the_gradient_reaches_the_network_alone():
  """With decay 1 the target stands still; without an average it is the network's own pass, as constant."""
  z, weight = normal(32, 6), jnp.asarray(0.7)
  params = {"params": {"backbone": {"weight": weight}}}
  state = {"target": {"average": {"count": jnp.asarray(1), "params": {"weight": weight}}}}

  def still(params, target):
    held = {"target": {"average": {**state["target"]["average"], "params": target}}}
    return loss(made(Scaled(), decay=1.0), {**params, **held}, z, mutable=["target"])[0]["shortcut"]

  own, average = jax.grad(still, (0, 1))(params, {"weight": weight})
  moving = jax.grad(lambda p: loss(made(Scaled()), p, z)["shortcut"])(params)
  assert float(average["weight"]) == 0 and abs(float(own["params"]["backbone"]["weight"])) > 1e-3
  assert np.isclose(own["params"]["backbone"]["weight"], moving["params"]["backbone"]["weight"], rtol=1e-5)
  assert abs(still(params, {"weight": weight}) - still(params, {"weight": weight + 0.3})) > 1e-3


@pytest.mark.parametrize("steps", [1, 2, 8, FINEST])
def test_any_number_of_exact_steps_ends_where_the_flow_does(steps: int):
  options = {"shape": (64, 64), "count": 2, "method": "sample", "rngs": RNGS}
  z = made(Steps(), sampler=Euler(steps)).apply({}, None, **options).z
  exact = FlowPrior(Exact(), sampler=Heun(200)).apply({}, None, **options).z
  assert np.abs(z - exact).max() < 1e-3


class Told(nn.Module):
  """1 with a label, 0 without; 10 more for steps of a length."""

  classes: int = 3
  conditions = ("label",)

  @nn.compact
  def __call__(self, x, t, cond, *, train: bool = False):
    known = labels(cond, 3, len(x)) < 3
    value = jnp.where(known, 1.0, 0.0) + jnp.where(t[:, 1] > 0, 10.0, 0.0)
    return value.reshape(-1, *[1] * (x.ndim - 1)) + 0 * x


def test_only_the_finest_steps_are_guided():
  prior = made(Told(), target_guidance=3.0)
  network = lambda params, x, t, cond: Told().apply({}, x, t, cond)
  step = prior._step(network, {}, {"label": jnp.array([0, 1])})
  found = step(normal(2, 3), jnp.ones(2), jnp.array([1 / FINEST, 0.5]))
  assert np.allclose(found, [[3.0] * 3, [11.0] * 3])


def test_mistakes_are_one_clear_line():
  z = normal(4, 3)
  wrong = {
    r"1, 2, 4, .. 16 steps, not in 3": made(Scaled(), sampler=Euler(3)),
    r"not in 32": made(Scaled(), sampler=Euler(32)),
    "power of two from 2": made(Scaled(), finest=48),
    "shift is 1": made(Scaled(), shift=2.0),
    "sampler is Euler": made(Scaled(), sampler=Heun(2)),
    "unconditional": made(Scaled(), target_guidance=2.0),
    "in `trained`": made(Scaled(), decay=0.9),
  }
  good = made(Scaled(), decay=0.9).init({"params": KEY, **RNGS}, Latent(z=z), None, train=True, method="loss")
  assert int(good["target"]["average"]["count"]) == 0
  alone = made(Scaled(), decay=0.9).init({"params": KEY, **RNGS}, Latent(z=z[:1]), None, train=True, method="loss")
  assert jax.tree.structure(alone) == jax.tree.structure(good)  # a finished stage is read with a batch of one
  for message, prior in wrong.items():
    with pytest.raises(UserError, match=message):
      loss(prior, good, z)
  with pytest.raises(UserError, match="not in 3"):
    made(DiT(1, 16, 2), sampler=Euler(3)).apply({}, None, shape=(4, 4, 3), count=2, method="sample", rngs=RNGS)
