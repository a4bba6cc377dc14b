"""Networks on sequences: what a row may know, steps with a cache, probabilities that sum to 1, orders, conditions."""

import itertools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from latents.backbones import RQTransformer, Transformer, VectorTransformer
from latents.errors import UserError
from latents.priors import AutoregressivePrior, AutoregressiveVectors
from latents.priors.base import drop
from latents.priors.heads import GaussianMixture
from latents.types import Latent
from tests.members.sequences import TOKENS, VECTORS

KEY = jax.random.key(0)
LENGTH = 6
LABEL = {
  "label": jnp.array([0, 2]),
  "text": jax.random.normal(KEY, (2, 3, 5)),
  "text_mask": jnp.array([[1, 0, 0], [1, 1, 1]], bool),
}
OF_TOKENS = pytest.mark.parametrize("make", [m[1] for m in TOKENS], ids=[m[0] for m in TOKENS])
OF_VECTORS = pytest.mark.parametrize("make", [m[1] for m in VECTORS], ids=[m[0] for m in VECTORS])


def drawn(model, *given, **kw):
  """Weights that are nowhere 0, so that everything counts."""
  variables = jax.jit(lambda: model.init(KEY, *given, **kw))()
  leaves, tree = jax.tree.flatten(variables)
  return jax.tree.unflatten(
    tree, [a + 0.3 * jax.random.normal(jax.random.key(i), a.shape) for i, a in enumerate(leaves)]
  )


def places_of(model, count: int = 2) -> dict:
  if not getattr(model, "told", False):
    return {}
  rows = [np.random.default_rng(i).permutation(model.length) for i in range(count)]
  return {"places": jnp.asarray(np.stack(rows), jnp.int32)}


@OF_TOKENS
def test_steps_with_a_cache_give_the_full_pass(make):
  model = make(5, LENGTH)
  tokens, told = jax.random.randint(KEY, (2, LENGTH), 0, 5), places_of(model)
  variables = drawn(model, tokens, LABEL, **told)
  full = jax.jit(lambda: model.apply(variables, tokens, LABEL, **told))()
  cache = model.apply(variables, 2, LABEL, method="cache")
  step = jax.jit(lambda *given: model.apply(variables, given[0], LABEL, *given[1:], method="step"))
  for i in range(LENGTH):
    before = tokens[:, max(i - 1, 0)]
    place = [jnp.stack([told["places"][:, max(i - 1, 0)], told["places"][:, i]], -1)] if told else []
    rows, after = step(before, jnp.int32(i), cache, *place)
    assert jax.tree.map(jnp.shape, after) == jax.tree.map(jnp.shape, cache)
    np.testing.assert_allclose(rows, full[:, i], atol=1e-5)
    cache = after
  assert step._cache_size() == 1


@OF_TOKENS
def test_a_row_knows_all_that_comes_before_it_and_nothing_else(make):
  model = make(5, LENGTH)
  tokens, told = jax.random.randint(KEY, (2, LENGTH), 0, 5), places_of(model)
  variables = drawn(model, tokens, LABEL, **told)
  run = jax.jit(lambda tokens: model.apply(variables, tokens, LABEL, **told))
  base = run(tokens)
  for i in range(LENGTH):
    moved = np.abs(run(tokens.at[:, i].set((tokens[:, i] + 1) % 5)) - base).max(-1)
    assert not moved[:, : i + 1].any()
    # what is read of a position of several levels is a sum: all later rows know all the same
    assert (moved[:, i + 1 :] > 1e-6).all()


@OF_VECTORS
def test_vectors_steps_and_causality_by_the_jacobian(make):
  model = make(LENGTH, 3, 4)
  x = jax.random.normal(KEY, (2, LENGTH, 3))
  variables = drawn(model, x, LABEL)
  run = lambda x: model.apply(variables, x, LABEL)
  full = jax.jit(run)(x)
  jacobian = jax.jit(jax.jacfwd(lambda x: run(x[None].repeat(2, 0))[0]))(x[0])  # [L,out,L,D]
  depends = np.abs(jacobian).max((1, 3)) > 0
  np.testing.assert_array_equal(depends, np.tri(LENGTH, k=-1, dtype=bool))
  cache = model.apply(variables, 2, LABEL, method="cache")
  step = jax.jit(lambda *given: model.apply(variables, given[0], LABEL, *given[1:], method="step"))
  for i in range(LENGTH):
    rows, cache = step(x[:, max(i - 1, 0)], jnp.int32(i), cache)
    np.testing.assert_allclose(rows, full[:, i], atol=1e-5)


@OF_TOKENS
def test_probabilities_of_all_sequences_sum_to_1(make):
  model = make(2, 4)
  prior = AutoregressivePrior(model)
  codes = jnp.asarray(list(itertools.product(range(2), repeat=4)), jnp.int32)
  grid = {1: (4,), 2: (2, 2)}[model.groups]
  latent = Latent(codes=codes.reshape(16, *grid))
  cond = {name: a[:1].repeat(16, 0) for name, a in LABEL.items()}
  told = places_of(model, 16)
  variables = {"params": {"backbone": drawn(model, codes, cond, **told)["params"]}}
  nats = jax.jit(lambda: prior.apply(variables, latent, cond, method="nll"))()
  assert np.exp(-np.asarray(nats, np.float64)).sum() == pytest.approx(1, abs=1e-5)
  assert np.ptp(nats) > 0.1


def test_samples_in_a_random_order_are_of_the_likelihood_of_that_order():
  """A network of two tokens that is told places: both orders' own joint distributions come out, half and half."""
  model = Transformer(2, 16, 1, 2, 2, multiple=8, places=2, told=True)
  tokens = jnp.asarray(list(itertools.product(range(2), repeat=2)), jnp.int32)
  forth, back = (jnp.broadcast_to(jnp.asarray(order), (4, 2)) for order in ([0, 1], [1, 0]))
  variables = drawn(model, tokens, None, places=forth)
  prior = AutoregressivePrior(model, order="random")
  held = {"params": {"backbone": variables["params"]}}

  def joint(places):
    told = jnp.take_along_axis(tokens, places, 1)
    log_p = jax.nn.log_softmax(model.apply(variables, told, None, places=places))
    return np.exp(jnp.take_along_axis(log_p, told[..., None], -1).sum((1, 2)))

  number = 4000
  draw = jax.jit(lambda key: prior.apply(held, None, shape=(2,), count=number, method="sample", rngs={"prior": key}))
  codes = np.asarray(draw(KEY).codes)
  found = np.bincount(codes[:, 0] * 2 + codes[:, 1], minlength=4) / number
  np.testing.assert_allclose(found, (joint(forth) + joint(back)) / 2, atol=4 * 0.5 / number**0.5)
  assert np.abs(joint(forth) - joint(back)).max() > 0.05  # the orders can be told apart
  raster = AutoregressivePrior(model).apply(held, Latent(codes=tokens), None, method="nll")
  np.testing.assert_allclose(np.exp(-raster), joint(forth), rtol=1e-5)


def test_corruption_changes_what_is_read_not_what_is_foretold():
  model = Transformer(5, 16, 1, 2, LENGTH, multiple=8)
  latent = Latent(codes=jax.random.randint(KEY, (2, LENGTH), 0, 5))
  variables = {"params": {"backbone": drawn(model, latent.codes, None)["params"]}}

  def nll(corrupt, train=True):
    prior = AutoregressivePrior(model, corrupt=corrupt)
    return prior.apply(variables, latent, None, train=train, method="loss", rngs={"prior": KEY})["nll"]

  assert nll(0.0) == nll(0.5, train=False)
  assert nll(0.5) != nll(0.0)


def test_codes_of_grids_are_corrupted_by_their_own():
  """Of grids with 64 and 3 codes each token is another of its own."""
  model = Transformer((64, 3), 16, 1, 2, 5, multiple=8, layout=((1,), (2, 2)))
  prior = AutoregressivePrior(model, corrupt=1.0)
  latent = Latent(codes=jnp.zeros((40, 5), jnp.int32))
  rngs = {"params": KEY, "prior": KEY}
  found = jax.jit(lambda: prior.init_with_output(rngs, latent, None, train=True, method="loss")[0])()
  assert np.isfinite(found["nll"])
  drawn = jax.random.randint(KEY, (4000, 5), 0, prior.vocab_of_tokens)
  assert drawn.max(0).tolist() == [63, 2, 2, 2, 2]


def test_who_is_dropped_already_stays_so():
  cond = {"label": jnp.zeros(200, jnp.int32), "drop": jnp.arange(200) < 100}
  found = drop(KEY, cond, 0.1)["drop"]
  assert found[:100].all() and 0 < found[100:].sum() < 30


def test_latents_of_which_some_are_left_out_are_refused_where_they_are_not_modelled():
  mask = jnp.ones((1, 4), bool)
  random = AutoregressivePrior(Transformer(5, 16, 1, 2, 4, places=4, told=True), order="random")
  vectors = AutoregressiveVectors(
    VectorTransformer(16, 1, 2, 4, width_in=2, out=8), GaussianMixture(dim=2, components=2)
  )
  for prior, latent in (
    (random, Latent(codes=jnp.zeros((1, 4), jnp.int32), mask=mask)),
    (vectors, Latent(z=jnp.zeros((1, 4, 2)), mask=mask)),
  ):
    with pytest.raises(UserError, match="some are left out"):
      jax.eval_shape(
        lambda p=prior, x=latent: p.init({"params": KEY, "prior": KEY}, x, None, train=True, method="loss")
      )


def test_a_hidden_text_is_not_seen():
  model = Transformer(5, 16, 2, 2, LENGTH, multiple=8, text=(3, 5))
  tokens = jax.random.randint(KEY, (2, LENGTH), 0, 5)
  variables = drawn(model, tokens, LABEL)
  run = lambda cond: model.apply(variables, tokens, cond)
  other = LABEL | {"text": LABEL["text"].at[0, 1:].add(1.0)}
  np.testing.assert_array_equal(run(LABEL)[0], run(other)[0])
  assert np.abs(run(LABEL | {"text": LABEL["text"].at[0, 0].add(1.0)})[0] - run(LABEL)[0]).max() > 1e-3


@pytest.mark.parametrize(
  ("make", "told"),
  [
    (lambda: AutoregressivePrior(Transformer(5, 16, 1, 2, 4), top_p=0.0), "top_p"),
    (lambda: AutoregressivePrior(Transformer(5, 16, 1, 2, 4), top_p=1.5), "top_p"),
    (lambda: AutoregressivePrior(Transformer(5, 16, 1, 2, 4), temperature=-0.5), "temperature"),
    (lambda: AutoregressivePrior(Transformer(5, 16, 1, 2, 4), corrupt=2.0), "corrupt"),
    (lambda: AutoregressivePrior(Transformer(5, 16, 1, 2, 4), order="random"), "told"),
    (lambda: AutoregressivePrior(Transformer(5, 16, 1, 2, 5)), "5 tokens"),
    (lambda: AutoregressivePrior(Transformer(5, 16, 1, 2, 4, told=True)), "places"),
    (lambda: AutoregressivePrior(Transformer(5, 16, 1, 2, 4, position="rotary", grid=(3, 3))), "a grid of .3, 3."),
    (lambda: AutoregressivePrior(RQTransformer(5, 16, 1, 1, 2, 4, 3)), "levels"),
  ],
)
def test_bad_input_is_one_line(make, told):
  with pytest.raises(UserError, match=told) as caught:
    make().init(
      {"params": KEY, "prior": KEY}, Latent(codes=jnp.zeros((1, 4), jnp.int32)), None, train=True, method="loss"
    )
  assert "\n" not in str(caught.value)
