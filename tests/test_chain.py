"""A chain of priors over grids: exact probabilities, draws as often as they say, whose part is whose."""

import itertools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from latents.backbones import GatedPixelCNN, PixelSNAILCodes
from latents.declare.check import DRAWS
from latents.errors import UserError
from latents.priors import AutoregressivePrior, ChainPrior
from latents.types import Latent
from tests.test_nn import randomise

KEY = jax.random.key(0)


def make(classes: int = 2, **options) -> ChainPrior:
  """A top of one code of 3, and four codes of 2 below."""
  top = PixelSNAILCodes(3, (1, 1), classes=classes, embed=3, width=8, blocks=1, resnets=1, dropout=0.0)
  bottom = GatedPixelCNN(
    2, (2, 2), classes=classes, width=4, depth=1, size=3, first=3, hidden=6, above=((1, 1, 3),), above_depth=1
  )
  priors = AutoregressivePrior(backbone=top), AutoregressivePrior(backbone=bottom)
  return ChainPrior(priors=priors, grids=((1, 1), (2, 2)), **options)


EVERY = np.array([(t, *b) for t in range(3) for b in itertools.product(range(2), repeat=4)], np.int32)  # [48,5]
LATENT = Latent(codes=jnp.asarray(EVERY))


def start(prior):
  rngs = {"params": KEY, "prior": KEY, "dropout": KEY}
  cond = {"label": jnp.zeros(48, jnp.int32)}
  return randomise(jax.eval_shape(lambda: prior.init(rngs, LATENT, cond, train=True, method="loss")), 0.7)


def test_probabilities_sum_to_one_and_draws_are_as_often():
  prior = make()
  params = start(prior)
  label = {"label": jnp.ones(48, jnp.int32)}
  nll = jax.jit(lambda cond: prior.apply(params, LATENT, cond, method="nll"))(label)
  chances = np.exp(-np.asarray(nll, np.float64))
  assert chances.sum() == pytest.approx(1, abs=1e-5) and chances.max() > 2 * chances.min()
  n = 8_000
  cond = {"label": jnp.ones(n, jnp.int32)}
  sample = jax.jit(lambda key: prior.apply(params, cond, shape=(5,), method="sample", rngs={"prior": key}).codes)
  codes = np.asarray(sample(KEY))
  assert codes.dtype == np.int32 and codes.shape == (n, 5)
  found = np.zeros(48)
  np.add.at(found, codes[:, 0] * 16 + codes[:, 1:] @ (8, 4, 2, 1), 1 / n)
  assert np.abs(found - chances).max() < 4.5 * 0.5 / np.sqrt(n)


def test_each_prior_has_its_own_grid_and_is_told_those_before():
  prior = make()
  params = start(prior)
  cond = {"label": jnp.arange(48) % 2, "drop": jnp.arange(48) % 3 == 0}
  top, bottom = prior.priors
  own = [{"params": params["params"][f"priors_{i}"]} for i in range(2)]

  @jax.jit
  def values(codes):
    latent = Latent(codes=codes)
    first = top.apply(own[0], Latent(codes=codes[:, :1].reshape(-1, 1, 1)), cond, method="nll")
    told = {**cond, "above": codes[:, :1]}
    second = bottom.apply(own[1], Latent(codes=codes[:, 1:].reshape(-1, 2, 2)), told, method="nll")
    whole = prior.apply(params, latent, cond, method="nll")
    return first, second, whole, prior.apply(params, latent, cond, train=False, method="loss")

  first, second, whole, terms = values(LATENT.codes)
  np.testing.assert_allclose(whole, first + second, atol=1e-5)
  assert terms.keys() == {"nll_1x1", "nll_2x2"}
  np.testing.assert_allclose(terms["nll_1x1"], first.mean(), rtol=1e-5)
  np.testing.assert_allclose(terms["nll_2x2"], second.mean() / 4, rtol=1e-5)
  again = values(LATENT.codes.at[:, 0].set((LATENT.codes[:, 0] + 1) % 3))
  assert (np.abs(again[1] - second) > 1e-4).all()  # what lies below is told the top


def test_it_says_what_the_parts_say():
  prior = make()
  assert (prior.vocabs, prior.classes, prior.conditions) == ((3, 2), 2, ("label",))
  assert (prior.discrete, prior.likelihood, prior.label_drop) == (True, True, 0.1)
  assert make(0).conditions == () and make(0).classes == 0
  assert (prior.temperature, prior.top_k, prior.top_p) == ((1.0, 1.0), (0, 0), (1.0, 1.0))
  looked_at = {name for name in DRAWS if hasattr(prior.priors[0], name)}
  assert looked_at == {"label_drop", "temperature", "top_k", "top_p"}  # each is one of the chain too


def test_chains_that_cannot_be():
  prior = make(0)
  one = prior.clone(grids=((1, 1),))
  for bad, latent, words in (
    (prior, Latent(codes=jnp.zeros((1, 4), jnp.int32)), r"are 5 codes in one sequence, but codes are \(4,\)"),
    (prior, Latent(z=jnp.zeros((1, 5, 2))), "continuous"),
    (one, Latent(codes=jnp.zeros((1, 1), jnp.int32)), "one prior for each of several grids, not 2"),
  ):
    with pytest.raises(UserError, match=words):
      jax.eval_shape(lambda b=bad, x=latent: b.init(KEY, x, None, method="nll"))
  with pytest.raises(UserError, match="unconditional"):
    jax.eval_shape(lambda: prior.init({"params": KEY, "prior": KEY}, None, shape=(5,), guidance=2.0, method="sample"))
