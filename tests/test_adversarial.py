"""Adversarial terms by hand: objectives, penalties, feature matching, what a judge is shown, the balancer."""

import dataclasses

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from latents.discriminators import Verdict
from latents.errors import UserError
from latents.losses import Adversarial, Balancer, ConditionalAdversarial, GradientNorm, PairAdversarial
from latents.losses.adversarial import lecam_term
from latents.optim import Adam, Average, Muon, PowerAverage
from latents.types import Seen


class Linear(nn.Module):
  """D(x) = w . x, twice as one sub-network each; its hidden layer is x; it counts its calls."""

  counts: bool = False

  @nn.compact
  def __call__(self, x, *, train):
    w = self.param("w", nn.initializers.ones, x.shape[1:])
    if self.counts:
      calls = self.variable("calls", "n", lambda: jnp.zeros(()))
      calls.value += 1.0
    logit = jnp.sum(w * x, axis=tuple(range(1, x.ndim)))[:, None]
    return Verdict((logit, logit), ((x,), (2 * x,)))


def seen(x, x_hat, **changes):
  return dataclasses.replace(Seen(x, x, x_hat, None, None, None, {}, jnp.int32(0)), **changes)


X, Y = jnp.array([[[1.0], [2.0]], [[0.0], [-1.0]]]), jnp.array([[[0.5], [0.0]], [[1.0], [1.0]]])
W = {"params": {"w": jnp.array([[1.0], [-0.5]])}}  # D(X) = (0, 0.5), D(Y) = (0.5, 0.5)


def learn(loss, own=W, at=0):
  return loss.learn(seen(X, Y, step=jnp.int32(at)), own, aux=None, key=None)


def soft(x):
  return np.log1p(np.exp(x))


@pytest.mark.parametrize(
  ("objective", "felt", "learnt"),
  [
    ("hinge", -0.5, ((1 + 0.5) / 2 + 1.5) / 2),
    ("vanilla", -0.5, ((soft(0) + soft(-0.5)) / 2 + soft(0.5)) / 2),
    ("nonsaturating", soft(-0.5), ((soft(0) + soft(-0.5)) / 2 + soft(0.5)) / 2),
    ("lsgan", 0.25, ((1 + 0.25) / 2 + 0.25) / 2),
  ],
)
def test_objectives_by_hand(objective, felt, learnt):
  loss = Adversarial(discriminator=Linear(), objective=objective)
  assert float(loss.measure(seen(X, Y), W, aux=None, key=None).value) == pytest.approx(felt, rel=1e-6)
  assert float(learn(loss).value) == pytest.approx(learnt, rel=1e-6)


def test_feature_matching_is_the_mean_over_layers_and_pulls_at_x_hat_alone():
  loss = Adversarial(discriminator=Linear(), features=3.0)
  plain = Adversarial(discriminator=Linear())
  distance = 1.5 * np.abs(np.asarray(X - Y)).mean()
  both = [float(one.measure(seen(X, Y), W, aux=None, key=None).value) for one in (loss, plain)]
  assert both[0] - both[1] == pytest.approx(3 * distance, rel=1e-6)
  grads = jax.grad(lambda x, y: loss.measure(seen(x, y), W, aux=None, key=None).value, (0, 1))(X, Y)
  assert float(jnp.abs(grads[0]).max()) == 0 and float(jnp.abs(grads[1]).max()) > 0


def test_features_are_asked_of_a_judge_that_has_some():
  class Bare(Linear):
    def __call__(self, x, *, train):
      return Verdict((x[:, 0],))

  with pytest.raises(UserError, match="hidden layers"):
    Adversarial(discriminator=Bare(), features=1.0).measure(seen(X, Y), {"params": {}}, aux=None, key=None)


def test_r1_of_a_linear_judge_is_half_gamma_w_squared_at_every_so_many_updates():
  loss = Adversarial(discriminator=Linear(), r1=4.0, r1_every=2, every=3, start=6)
  plain = float(learn(dataclasses.replace(loss, r1=0.0)).value)
  added = [float(learn(loss, at=step).value) - plain for step in (6, 9, 12)]
  np.testing.assert_allclose(added, [2 * 2.0 * 1.25, 0, 2 * 2.0 * 1.25], rtol=1e-5, atol=1e-6)
  assert [float(loss.learn_gate(jnp.int32(s))) for s in range(5, 10)] == [0, 1, 0, 0, 1]
  slope = jax.grad(lambda w: learn(loss, {"params": {"w": w}}, 6).value)(W["params"]["w"])
  bare = jax.grad(lambda w: learn(loss, {"params": {"w": w}}, 9).value)(W["params"]["w"])
  np.testing.assert_allclose(slope - bare, 2 * 4.0 * W["params"]["w"], rtol=1e-5)  # d/dw of 2 * 2 |w|^2


def test_lecam_by_hand_and_zero_inside_its_band():
  zeros = {name: jnp.zeros(()) for name in ("real", "fake", "share")}
  kept, term = lecam_term(zeros, (jnp.array([3.0, 1.0]),), (jnp.array([-1.0, 1.0]),))
  assert {k: float(v) for k, v in kept.items()} == pytest.approx({"real": 0.002, "fake": 0.0, "share": 0.001})
  assert float(term) == pytest.approx((9 + 1) / 2 + (9 + 1) / 2, rel=1e-4)  # a_R = 2, a_F = 0
  _, inside = lecam_term(kept, (jnp.array([-0.5]),), (jnp.array([2.5]),))
  assert float(inside) == 0
  loss = Adversarial(discriminator=Linear(), lecam=0.1)
  own = {**W, "lecam": zeros}
  assert set(learn(loss, own).state) == {"lecam"} and float(learn(loss, own).state["lecam"]["share"]) > 0


def test_a_judging_pass_leaves_the_judges_state_and_learning_carries_it_through_both_signals():
  loss = Adversarial(discriminator=Linear(counts=True), features=1.0)
  own = {**W, "calls": {"n": jnp.float32(5)}}
  assert loss.measure(seen(X, Y), own, aux=None, key=None).state == {}
  assert float(learn(loss, own).state["calls"]["n"]) == 7
  assert set(loss.init(jax.random.key(0), seen(X, Y), aux=None)) == {"params", "calls"}


def test_a_pair_is_shown_both_ways():
  loss = PairAdversarial(discriminator=Linear())
  real, fake = (loss.shown(seen(X, Y), real=r)[0] for r in (True, False))
  np.testing.assert_array_equal(real, jnp.concatenate([X, Y], -1))
  np.testing.assert_array_equal(fake, real[..., ::-1])
  own = {"params": {"w": jnp.array([[1.0, -1.0], [0.5, -0.5]])}}  # antisymmetric: D(x, y) = -D(y, x)
  judged = [loss.judge(seen(X, Y), own, r)[0].logits[0] for r in (True, False)]
  np.testing.assert_allclose(judged[0], -judged[1])
  assert loss.init(jax.random.key(0), seen(X, Y), aux=None)["params"]["w"].shape == (2, 2)


@pytest.mark.parametrize("objective", ["nonsaturating", "lsgan"])
def test_the_decoder_of_a_pair_feels_what_the_judge_would_learn_of_the_exchanged_pair(objective):
  loss = PairAdversarial(discriminator=Linear(), objective=objective)
  own = {"params": {"w": jnp.array([[1.0, -0.3], [0.5, 0.2]])}}
  felt = loss.measure(seen(X, Y), own, aux=None, key=None).value
  assert float(felt) == pytest.approx(float(loss.learn(seen(Y, X), own, aux=None, key=None).value), rel=1e-6)
  a, b = (loss.judge(seen(X, Y), own, r)[0].logits[0] for r in (True, False))
  by_hand = (soft(a) + soft(-b)) / 2 if objective == "nonsaturating" else (a**2 + (1 - b) ** 2) / 2
  assert float(felt) == pytest.approx(float(np.mean(by_hand)), rel=1e-6)
  # nothing can be told of equal signals: the judge's best verdict is none
  equal = lambda w: loss.learn(seen(X, X), {"params": {"w": w}}, aux=None, key=None).value
  if objective == "nonsaturating":
    np.testing.assert_allclose(jax.grad(equal)(jnp.zeros((2, 2))), 0, atol=1e-7)
    assert float(equal(jnp.zeros((2, 2)))) == pytest.approx(np.log(2), rel=1e-6)


@pytest.mark.parametrize("objective", ["hinge", "vanilla"])
def test_both_orders_of_a_pair_are_felt(objective):
  loss = PairAdversarial(discriminator=Linear(), objective=objective)
  own = {"params": {"w": jnp.array([[1.0, -0.3], [0.5, 0.2]])}}
  a, b = (loss.judge(seen(X, Y), own, r)[0].logits[0].mean() for r in (True, False))
  assert float(loss.measure(seen(X, Y), own, aux=None, key=None).value) == pytest.approx(float(a - b) / 2, rel=1e-5)


@pytest.mark.parametrize("scale", [0.3, 50.0, 1e4])
def test_an_adaptive_weight_takes_the_scale_out_of_its_loss(scale):
  """w(s g) s g = w(g) g, up to the 1e-4 beside |g|."""
  loss, rec, own = Adversarial(), jnp.array([3.0, 4.0]), jnp.array([0.6, -0.8])
  felt = lambda g: loss.adaptive_weight(rec, g) * g
  np.testing.assert_allclose(felt(scale * own), felt(own), rtol=1e-4 * max(1, 1 / scale) + 1e-6)
  np.testing.assert_allclose(jnp.linalg.norm(felt(own)), jnp.linalg.norm(rec), rtol=2e-4)
  np.testing.assert_allclose(felt(own) * 7, loss.adaptive_weight(7 * rec, own) * own, rtol=1e-6)


def test_the_gradient_norm_by_hand():
  """Named losses push with the length of their weight, whatever their size; others as they are."""
  rule = GradientNorm(("lpips", "gan"))
  pushes = {"l1": jnp.array([[1.0], [2.0]]), "lpips": jnp.array([[3.0], [4.0]]), "gan": jnp.array([[0.0], [1e-3]])}
  told = {"l1": jnp.float32(2), "lpips": jnp.float32(0.5), "gan": jnp.float32(1)}
  total, kept, factors = rule(pushes, told, rule.init(list(pushes)))
  np.testing.assert_allclose(total, 2 * pushes["l1"] + 0.1 * pushes["lpips"] + pushes["gan"] / 1e-3, rtol=1e-4)
  assert kept == {} and float(factors["lpips"]) == pytest.approx(0.1)
  large = rule({**pushes, "gan": 1e6 * pushes["gan"]}, told, {})[0]
  np.testing.assert_allclose(large, total, rtol=1e-4)
  silent = rule({**pushes, "gan": 0 * pushes["gan"]}, told, {})[0]
  assert np.isfinite(silent).all()
  everything = GradientNorm()(pushes, told, {})[0]
  np.testing.assert_allclose(everything - total, (1 / 5**0.5 - 1) * 2 * pushes["l1"], rtol=1e-3)
  with pytest.raises(UserError, match=r"names 'lpip'.*lpips"):
    GradientNorm(("lpip",)).check(list(pushes))


def test_what_is_given_is_seen_and_not_pulled_at():
  loss = ConditionalAdversarial(discriminator=Linear(), given=("decoder/t", "decoder/noisy"))
  taps = {"decoder/t": jnp.array([0.25, 0.5]), "decoder/noisy": 2 * Y}
  assert loss.reads == ("decoder/t", "decoder/noisy")
  (shown,) = loss.shown(seen(X, Y, taps=taps), real=False)
  np.testing.assert_array_equal(
    shown, jnp.concatenate([Y, jnp.array([0.25, 0.5]).reshape(2, 1, 1) * jnp.ones_like(Y), 2 * Y], -1)
  )
  own = {"params": {"w": jnp.ones((2, 3))}}
  found = jax.grad(lambda t: loss.measure(seen(X, Y, taps={**taps, "decoder/noisy": t}), own, aux=None, key=None).value)
  assert float(jnp.abs(found(Y)).max()) == 0
  with pytest.raises(UserError, match="'decoder/noisy' is"):
    loss.shown(seen(X, Y, taps={**taps, "decoder/noisy": jnp.ones((2, 3, 1))}), real=True)


def test_the_balancer_by_hand():
  """Two pushes of lengths 5 and 100 with weights 1 and 3: shares of 1/4 and 3/4 of the norm, then the averages."""
  balancer = Balancer(norm=2.0, decay=0.5)
  a, b = jnp.array([[[1.5], [2.0]]] * 2), jnp.array([[[0.0], [50.0]]] * 2)  # of means over two examples
  told = {"a": jnp.float32(1), "b": jnp.float32(3), "late": jnp.float32(0)}
  pushes = {"a": a, "b": b, "late": jnp.zeros_like(a)}
  total, kept, factors = balancer(pushes, told, balancer.init(list(pushes)))
  assert {k: float(v) for k, v in factors.items()} == pytest.approx({"a": 2 / 4 / 5, "b": 2 * 0.75 / 100, "late": 0})
  np.testing.assert_allclose(total, a * 0.1 + b * 0.015, rtol=1e-6)
  _, kept, factors = balancer({**pushes, "a": 2 * a}, told, kept)  # (0.5 * 5 + 10) / 1.5
  assert float(factors["a"]) == pytest.approx(2 / 4 / (12.5 / 1.5), rel=1e-6)
  assert float(kept["late"]["share"]) == 0
  opposite = balancer({"a": a, "b": -100 * a}, {"a": jnp.ones(()), "b": jnp.ones(())}, balancer.init(["a", "b"]))[0]
  np.testing.assert_allclose(opposite, 0, atol=1e-6)


@pytest.mark.parametrize(
  ("decays", "decayed"),
  [
    ("all", {"kernel", "bias", "scale", "embedding", "positions", "heads"}),
    ("kernels", {"kernel"}),
    ("matrices", {"kernel", "embedding", "positions"}),
  ],
)
def test_what_decays_is_what_is_said(decays, decayed):
  sizes = {"kernel": (2, 2), "bias": (2,), "scale": (2,), "embedding": (3, 2), "positions": (4, 2)}
  params = {name: jnp.ones(shape) for name, shape in sizes.items()} | {"heads": {"bias": jnp.ones((2, 2))}}
  zeros = jax.tree.map(jnp.zeros_like, params)
  tx = Adam(lr=0.1, decay=0.5, decays=decays).make(10)
  updates, _ = tx.update(zeros, tx.init(params), params)
  after = optax.apply_updates(params, updates)
  for name in params:
    (leaf,) = jax.tree.leaves(after[name])
    np.testing.assert_allclose(leaf, 0.95 if name in decayed else 1.0, rtol=1e-6)


def test_muon_moves_kernels_by_an_orthogonal_factor_and_adam_the_rest():
  params = {"conv": {"kernel": jnp.zeros((1, 2, 8)), "bias": jnp.zeros(8)}, "embedding": jnp.zeros((4, 8))}
  grads = jax.tree.map(lambda a: jnp.asarray(np.random.default_rng(0).normal(size=a.shape), jnp.float32), params)
  tx = Muon(lr=0.1, adam_lr=0.01).make(10)
  updates, _ = tx.update(grads, tx.init(params), params)
  moved = np.asarray(updates["conv"]["kernel"]).reshape(2, 8)
  lengths = np.linalg.svd(moved, compute_uv=False)
  assert (np.abs(lengths / (0.1 * 2) - 1) < 0.35).all()  # sqrt(8 / 2); Newton-Schulz is not exact
  u, _, v = np.linalg.svd(np.asarray(grads["conv"]["kernel"]).reshape(2, 8), full_matrices=False)
  assert np.sum(moved * -(u @ v)) / (np.linalg.norm(moved) * np.linalg.norm(u @ v)) > 0.97
  for name in ("embedding",):
    assert np.abs(updates[name]).max() < 0.03 and np.abs(updates[name]).min() > 1e-3


def test_averages_by_hand():
  assert float(Average(0.9).keep(jnp.int32(0))) == pytest.approx(0.1)
  assert float(Average(0.9).keep(jnp.int32(10_000))) == pytest.approx(0.9)
  power, mean = PowerAverage(gamma=2.0), 0.0
  for step in range(50):
    k = float(power.keep(jnp.int32(step)))
    mean = k * mean + (1 - k) * (step + 1)
  t = np.arange(1, 51)
  exact = t**3 - (t - 1) ** 3  # the weights that (1 - 1/t)^3 gives
  assert mean == pytest.approx((exact * t).sum() / exact.sum(), rel=1e-4)
