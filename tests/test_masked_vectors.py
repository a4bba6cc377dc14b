"""MAR: nothing is known of masked tokens, the order and the lots of sampling, guidance's ramp; its diffusion head."""

import math

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from experiments.priors import mar
from latents.backbones import MaskedAutoencoder
from latents.backbones.stepwise import Stepwise
from latents.diffusion import DDPM, Cosine, Exploding, Heun, Process
from latents.errors import UserError
from latents.priors import MAR
from latents.priors.heads import DiffusionHead, Head
from latents.priors.masked import left_masked
from latents.priors.masked_vectors import masked_share
from latents.priors.vectors import AutoregressiveVectors
from latents.types import Latent
from tests.test_nn import drawn, normal
from tests.test_priors import LABEL, start

KEY = jax.random.key(0)
NET = MaskedAutoencoder(16, 2, 2, length=6, classes=3, buffer=3)
X = normal(2, 6, 4)
MASKED = jnp.array([[1, 0, 1, 1, 0, 0], [0, 0, 0, 1, 1, 1]], bool)
LABELS = {"label": jnp.array([0, 2])}
PARAMS = drawn(NET, X, MASKED, LABELS)


def features(x, masked=MASKED, params=PARAMS):
  return NET.apply(params, x, masked, LABELS)


def test_nothing_is_known_of_masked_tokens():
  slope = np.abs(jax.jacrev(lambda x: features(x).sum(-1))(X))
  for b in range(2):
    of = slope[b, :, b].sum(-1)  # [rows, tokens]
    assert not of[:, np.asarray(MASKED[b])].any()
    assert (of[:, ~np.asarray(MASKED[b])] > 0).all()  # every row sees every visible token
    assert not slope[b, :, 1 - b].any()


def test_what_the_encoder_makes_of_a_masked_place_reaches_nobody():
  """The code gathers the visible tokens: a masked one's place in the encoder does not exist for it."""
  own = PARAMS["params"]
  moved = own["encoder_places"].at[3 + 3].add(5.0)  # token 3, which both mask, after 3 tokens of the class
  assert np.array_equal(features(X), features(X, params={"params": {**own, "encoder_places": moved}}))
  moved = own["encoder_places"].at[3 + 1].add(5.0)  # token 1, which neither masks
  assert not np.allclose(features(X), features(X, params={"params": {**own, "encoder_places": moved}}))


def test_gathered_tokens_give_the_same_numbers():
  """The same encoder on the visible tokens alone, as the code runs it."""
  own, b = PARAMS["params"], 0
  seen = [0, 1, 2, *(3 + np.flatnonzero(~np.asarray(MASKED[b])))]
  small = MaskedAutoencoder(16, 2, 2, length=3, classes=3, buffer=3)
  places = {name: own[name][jnp.asarray(seen)] for name in ("encoder_places", "decoder_places")}
  whole = NET.apply(PARAMS, X, MASKED, LABELS, capture_intermediates=True)[1]["intermediates"]
  part = small.apply(
    {"params": {**own, **places, "final_places": own["final_places"][:3]}}, X[:1][:, ~np.asarray(MASKED[b])],
    jnp.zeros((1, 3), bool), {"label": LABELS["label"][:1]}, capture_intermediates=True,
  )[1]["intermediates"]  # fmt: skip
  assert (
    np.abs(whole["encoder_norm"]["__call__"][0][b][jnp.asarray(seen)] - part["encoder_norm"]["__call__"][0][0]).max()
    < 1e-5
  )


def test_tokens_of_the_class_are_not_counted():
  assert features(X).shape == (2, 6, 16)
  assert np.abs(features(X) - NET.apply(PARAMS, X, MASKED, None)).max() > 1e-3
  with pytest.raises(UserError, match=r"models \[B,6,D\]"):
    features(X[:, :5], MASKED[:, :5])


def test_the_share_that_is_masked():
  share = np.asarray(jax.vmap(masked_share)(jax.random.split(KEY, 20_000)))
  assert share.min() >= 0.7 and share.max() <= 1
  assert abs(share.mean() - 0.867) < 0.002  # of N(1, 0.25^2) between 0.7 and 1
  assert np.mean(share > 0.9) > 0.36  # more than a third of the width: towards 1


class Table(nn.Module):
  """A parameter a token; it says what was masked."""

  length: int = 9
  out: int = 2
  classes: int = 0
  conditions = ()

  @nn.compact
  def __call__(self, x, masked, cond, *, train: bool = False):
    self.sow("intermediates", "masked", masked)
    return self.param("table", nn.initializers.normal(), (self.length, self.out))[None] + 0 * x[..., :1]


class Distance(Head):
  out = 2
  likelihood = False

  def nll(self, given, x):
    return jnp.square(given - x).sum(-1)


def test_the_loss_is_of_masked_tokens_alone():
  prior, z = MAR(Table(), Distance(2)), normal(50, 9, 2)
  params = start(prior, Latent(z=z))
  value = lambda p, key=KEY: prior.apply(
    p, Latent(z=z), None, train=True, method="loss", rngs={"prior": key}, mutable=["intermediates"]
  )  # fmt: skip
  terms, state = value(params)
  masked = np.asarray(state["intermediates"]["backbone"]["masked"][0])
  counts = masked.sum(1)
  assert (counts == counts[0]).all() and 7 <= counts[0] <= 9  # one share for a batch
  errors = np.square(np.asarray(params["params"]["backbone"]["table"]) - np.asarray(z)).sum(-1)
  assert float(terms["masked"]) == pytest.approx(errors[masked].mean(), rel=1e-5)
  found = {
    int(value(params, jax.random.key(i))[1]["intermediates"]["backbone"]["masked"][0][0].sum()) for i in range(9)
  }
  assert len(found) > 1  # and another one for the next
  some = np.asarray(value(params, jax.random.key(3))[1]["intermediates"]["backbone"]["masked"][0])
  assert len({tuple(row) for row in some}) > 5 or some.all()  # other tokens in every example


class Counting(nn.Module):
  """Says of every token how many are known; 100 more without a condition."""

  length: int = 10
  out: int = 2
  classes: int = 3
  conditions = ("label",)

  @nn.compact
  def __call__(self, x, masked, cond, *, train: bool = False):
    known = (~masked).sum(1) + (0 if cond is None else 100 * cond.get("drop", jnp.zeros(len(x), bool)))
    return jnp.broadcast_to(known[:, None, None], (*masked.shape, 2)).astype(jnp.float32)


class Writing(Head):
  """Draws what it is told: how many were known, and the scale of guidance."""

  out = 2

  def draw(self, keys, given, other, guidance, temperature):
    return jnp.stack([given[:, 0], jnp.broadcast_to(guidance, given[:, 0].shape)], -1)


LABELS3 = {"label": jnp.arange(3)}


@pytest.mark.parametrize("steps", [1, 4, 10])
def test_lots_are_drawn_in_order_and_stay(steps: int):
  prior = MAR(Counting(), Writing(2), steps=steps)
  orders = jax.vmap(lambda key: jax.random.permutation(key, 10))(jax.random.split(KEY, 3))
  run = jax.jit(
    lambda scale: prior.apply({}, orders, jax.random.split(KEY, 3), LABELS3, scale, method="filled"), static_argnums=0
  )
  left = left_masked(10, steps)
  before = np.array([10, *left[:-1]])
  for scale in (1.0, 3.0):
    x = np.asarray(run(scale))
    told = np.take_along_axis(x, np.asarray(orders)[..., None], 1)  # as they were drawn
    assert np.array_equal(told[..., 0], np.tile(np.repeat(10 - before, before - left), (3, 1)))
    ramp = 1 + (scale - 1) * (10 - np.maximum(left, 1)) / 10
    assert np.allclose(told[..., 1], np.repeat(ramp, before - left), atol=1e-6)
  assert (np.asarray(run(0.0))[..., 0] >= 100).all()  # no condition at all


class Echo(Writing):
  """Draws the first numbers of what it is told."""

  out = 16

  def draw(self, keys, given, other, guidance, temperature):
    return given[:, : self.dim]


@pytest.mark.parametrize("order", [[0, 1, 2, 3, 4, 5], [4, 2, 0, 5, 1, 3]])
def test_at_one_step_the_order_does_not_matter(order: list[int]):
  prior = MAR(NET, Echo(4), steps=1)
  params = {"params": {"backbone": PARAMS["params"]}}
  orders, keys = jnp.tile(jnp.asarray(order), (2, 1)), jax.random.split(KEY, 2)
  x = jax.jit(lambda: prior.apply(params, orders, keys, LABELS, method="filled"))()
  assert np.abs(x - features(0 * X, jnp.ones((2, 6), bool))[..., :4]).max() < 1e-5


# -- the head


def test_its_first_loss_is_that_of_noise_guessed_as_zero():
  head = DiffusionHead(2, features=3, depth=1, width=8, process=Process(Cosine(), "noise"), draws=4)
  given, x = normal(4000, 3), normal(4000, 2, seed=1)
  rngs = {"params": KEY, "prior": KEY}
  each = jax.jit(lambda: head.init_with_output(rngs, given, x, method="nll"))()[0]
  assert each.shape == (4000,) and float(each.mean()) == pytest.approx(1.0, abs=0.02)
  assert float(each.std()) == pytest.approx(0.5, abs=0.03)  # of 2 numbers at 4 levels: sqrt(2 / 8)
  learned = DiffusionHead(2, features=3, depth=1, width=8)
  assert np.isfinite(jax.jit(lambda: learned.init_with_output(rngs, given, x, method="nll"))()[0]).all()


def mixture(key, batch):
  sign = jnp.where(jax.random.bernoulli(key, 0.5, (batch, 1)), 1.0, -1.0)
  return sign * jnp.array([0.9, -0.9]) + 0.1 * jax.random.normal(jax.random.fold_in(key, 1), (batch, 2))


def test_it_finds_both_of_two_modes_whose_mean_is_neither():
  """What a network trained by the squared error would give, the mean, is 1.2 away from all data."""
  head, optimizer = (
    DiffusionHead(2, features=3, depth=2, width=48, draws=2, sampler=DDPM(30, "learned")),
    optax.adam(3e-3),
  )
  rngs = {"params": KEY, "prior": KEY}
  given = jnp.ones((256, 3))
  loss = lambda p, key: head.apply(p, given, mixture(key, 256), method="nll", rngs={"prior": key}).mean()

  @jax.jit
  def train(params):
    def step(carry, key):
      params, state = carry
      updates, state = optimizer.update(jax.grad(loss)(params, key), state)
      return (optax.apply_updates(params, updates), state), None

    return jax.lax.scan(step, (params, optimizer.init(params)), jax.random.split(KEY, 600))[0][0]

  params = train(jax.jit(lambda: head.init(rngs, given, mixture(KEY, 256), method="nll"))())
  keys = jax.random.split(jax.random.key(5), 500)
  drawn = lambda heat: np.asarray(
    jax.jit(lambda: head.apply(params, keys, jnp.ones((500, 3)), None, 1.0, heat, method="draw"))()
  )
  x = drawn(1.0)
  far = lambda x: np.minimum(np.linalg.norm(x - [0.9, -0.9], axis=1), np.linalg.norm(x + [0.9, -0.9], axis=1))
  assert np.mean(far(x) < 0.5) > 0.9 and 0.3 < np.mean(x[:, 0] > 0) < 0.7
  assert np.median(far(drawn(0.0))) < np.median(far(x))  # less noise, nearer to the modes


class Before(Stepwise):
  """The mean of the elements before."""

  length: int = 5
  out: int = 3
  width_in: int = 2
  classes: int = 0
  conditions = ()

  @nn.compact
  def __call__(self, x, cond, *, train: bool = False):
    before = jnp.pad(x, ((0, 0), (1, 0), (0, 0)))[:, :-1]
    return nn.Dense(self.out)(jnp.cumsum(before, 1) / jnp.arange(1, self.length + 1)[:, None])


def test_it_stands_in_an_autoregressive_prior_too():
  prior = AutoregressiveVectors(Before(), DiffusionHead(2, features=3, depth=1, width=8, sampler=DDPM(3, "learned")))
  latent = Latent(z=normal(4, 5, 2))
  params = start(prior, latent, 0.1)
  loss = prior.apply(params, latent, None, train=True, method="loss", rngs={"prior": KEY})
  assert np.isfinite(loss["nll"]) and not prior.likelihood and not prior.discrete
  z = jax.jit(lambda p: prior.apply(p, None, shape=(5, 2), count=3, method="sample", rngs={"prior": KEY}))(params).z
  assert z.shape == (3, 5, 2) and np.isfinite(z).all()


def test_mistakes_are_one_clear_line():
  keys, given = jax.random.split(KEY, 2), normal(2, 3)
  head = DiffusionHead(2, features=3, depth=1, width=8, sampler=Heun(2))
  rngs = {"params": KEY, "prior": KEY}
  params = jax.jit(lambda: head.init(rngs, given, normal(2, 2), method="nll"))()
  with pytest.raises(UserError, match="multiplies the noise of DDPM's steps"):
    head.apply(params, keys, given, None, 1.0, 0.5, method="draw")
  with pytest.raises(UserError, match="not Exploding"):
    jax.eval_shape(lambda: head.clone(process=Process(Exploding())).init(rngs, given, normal(2, 2), method="nll"))
  with pytest.raises(UserError, match="reads 3 numbers an element, but the network's `out` is 16"):
    jax.eval_shape(
      lambda: MAR(NET, DiffusionHead(4, features=3)).init(rngs, Latent(z=X), None, train=True, method="loss")
    )
  with pytest.raises(UserError, match="models elements of 2 numbers"):
    jax.eval_shape(lambda: MAR(NET, head.clone(features=16)).init(rngs, Latent(z=X), None, train=True, method="loss"))
  prior = MAR(Counting(), Writing(2), temperature=-1.0)
  with pytest.raises(UserError, match="a temperature is at least 0"):
    prior.apply({}, LABEL, shape=(10, 2), method="sample", rngs=rngs)


@pytest.mark.parametrize(("size", "millions"), [("B", 208), ("L", 479), ("H", 943)])
def test_sizes_are_the_papers(size, millions: int):
  prior = mar.paper(size, 1000)
  rngs = {"params": KEY, "prior": KEY, "dropout": KEY}
  label = {"label": jnp.zeros(1, int)}
  made = jax.eval_shape(
    lambda: prior.init(rngs, Latent(z=jnp.zeros((1, 16, 16, 16))), label, train=True, method="loss")
  )
  assert math.ceil(sum(math.prod(a.shape) for a in jax.tree.leaves(made)) / 1e6) == millions
