"""Baselines of codes: planted distributions whose answer is known, by hand, and in a run's score card."""

import dataclasses
import math

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from latents.bottlenecks import EMAVQ, ResidualVQ
from latents.data import evaluation_batches
from latents.evaluate import Layout
from latents.report.scores import KNOWN
from latents.types import Latent
from latents.use import baselines, prior_loss
from latents.use.baselines import Baselines, Counts, kinds, tally
from tests import micro
from tests.test_score import model

RNG = np.random.default_rng


def made(tokens: np.ndarray, vocab: int, groups: int = 1) -> Baselines:
  number = np.arange(tokens.shape[1])
  whole = np.ones(tokens.shape, bool)
  return Baselines((tokens, whole), number % groups, np.maximum(number - groups, -1), (vocab,) * groups)


def bits(counted: Baselines, tokens: np.ndarray) -> tuple[float, float]:
  """(marginal, first order), bits a token."""
  found = counted.bits((tokens, np.ones(tokens.shape, bool))) / tokens.size
  return float(found[0]), float(found[1])


def entropy(p: np.ndarray) -> np.ndarray:
  return -(p * np.log2(np.where(p > 0, p, 1))).sum(-1)


def chain(count: int, length: int, seed: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
  """(a transition matrix of 5 states, its stationary distribution, samples [count,length])."""
  matrix = RNG(0).dirichlet([0.3] * 5, 5)
  values, vectors = np.linalg.eig(matrix.T)
  stationary = np.real(vectors[:, np.argmax(np.real(values))])
  stationary /= stationary.sum()
  draw, rows = RNG(seed), np.zeros((count, length), np.int64)
  rows[:, 0] = draw.choice(5, count, p=stationary)
  for i in range(1, length):
    rows[:, i] = (draw.random((count, 1)) > np.cumsum(matrix[rows[:, i - 1]], 1)).sum(1).clip(max=4)
  return matrix, stationary, rows


def test_of_a_markov_chain_pairs_find_the_entropy_rate_and_positions_the_stationary_entropy():
  matrix, stationary, train = chain(2000, 32, 1)
  marginal, first = bits(made(train, 5), chain(4000, 32, 2)[2])
  rate, flat = float(stationary @ entropy(matrix)), float(entropy(stationary))
  assert flat - rate > 0.4
  assert marginal == pytest.approx(flat, abs=0.02)
  assert first == pytest.approx((flat + 31 * rate) / 32, abs=0.02)  # the first token has none before it


def test_of_independent_positions_the_marginal_finds_the_mean_of_their_entropies():
  p = RNG(0).dirichlet([0.4] * 8, 12)
  draw = lambda seed: np.stack([RNG([seed, i]).choice(8, 6000, p=row) for i, row in enumerate(p)], 1)
  marginal, first = bits(made(draw(1), 8), draw(2))
  assert marginal == pytest.approx(entropy(p).mean(), abs=0.01)
  assert first > marginal + 0.1  # the token before says little of which position it is


def test_groups_are_told_apart_and_each_sees_its_own_token_before():
  """Channel 0 repeats itself, channel 1 is even; flattened with the channel innermost."""
  same = np.repeat(RNG(0).integers(0, 4, (3000, 1)), 6, 1)
  tokens = np.stack([same, RNG(1).integers(0, 4, (3000, 6))], -1).reshape(3000, 12)
  marginal, first = bits(made(tokens[:2000], 4, 2), tokens[2000:])
  assert marginal == pytest.approx(2, abs=0.01)
  assert first == pytest.approx((1 * 2 + 5 * 0 + 6 * 2) / 12, abs=0.01)


def test_counts_by_hand():
  """Two examples of two tokens: 0 1, 0 2, of three codes."""
  counted = made(np.array([[0, 1], [0, 2]]), 3)
  q = np.array([(2 + 3 / 3) / 7, (1 + 3 / 3) / 7, (1 + 3 / 3) / 7])  # four tokens, three different ones
  assert q.sum() == pytest.approx(1)
  np.testing.assert_allclose(counted.whole, [q])
  test = np.array([[0, 1], [1, 0]])
  found = counted.bits((test, np.ones((2, 2), bool)))
  first = [(2 + q[0]) / 3, (0 + q[1]) / 3]  # twice 0, nothing else
  second = [(1 + 2 * q[1]) / 4, (0 + 2 * q[0]) / 4]  # once 1, once 2
  np.testing.assert_allclose(found[0], -np.log2([*first, *second]).sum())
  pairs = [(1 + 2 * q[1]) / 4, q[0]]  # behind 0 as at position 1; behind 1 nothing was ever seen
  np.testing.assert_allclose(found[1], -np.log2([*first, *pairs]).sum())
  kept = np.array([[True, True], [False, True]])
  found = counted.bits((test, kept))  # the last one has no token before it, and the third none at all
  np.testing.assert_allclose(found[0], -np.log2([first[0], *second]).sum())
  np.testing.assert_allclose(found[1], -np.log2([first[0], pairs[0], second[1]]).sum())


def test_chances_sum_to_one_in_every_context_also_of_large_vocabularies(monkeypatch):
  rng = RNG(0)
  context, token = rng.integers(0, 50, 4000), rng.zipf(1.3, 4000) % 16_384
  even, every = np.full(16_384, 1 / 16_384), np.arange(16_384)
  for size in (baselines.DENSE, 0):  # in a table, and without one
    monkeypatch.setattr(baselines, "DENSE", size)
    counts = Counts(context, token, 16_384)
    for one in (0, 17, 49, 60):
      assert counts.chances(np.full(16_384, one), every, even).sum() == pytest.approx(1)
    keys, seen = tally(context)
    assert np.array_equal(keys, np.unique(context)) and seen.sum() == 4000


def test_grids_have_a_vocabulary_and_a_beginning_each():
  kind, before, vocab = kinds(
    Layout((8, 8, 1), Latent(codes=jax.ShapeDtypeStruct((5,), jnp.int32)), (3, 9), sizes=(1, 4))
  )
  assert kind.tolist() == [0, 1, 1, 1, 1] and before.tolist() == [-1, -1, 1, 2, 3] and vocab == (3, 9)
  tokens = np.concatenate([RNG(0).integers(0, 3, (4000, 1)), RNG(1).integers(0, 9, (4000, 4))], 1)
  counted = Baselines((tokens, np.ones(tokens.shape, bool)), kind, before, vocab)
  for found in bits(counted, tokens):
    assert found == pytest.approx((math.log2(3) + 4 * math.log2(9)) / 5, abs=0.02)
  kind, before, _ = kinds(Layout((8, 8, 1), Latent(codes=jax.ShapeDtypeStruct((2, 2, 3), jnp.int32)), (7, 7, 7)))
  assert kind.tolist() == [0, 1, 2] * 4 and before.tolist() == [-1] * 3 + list(range(9))


def test_a_score_card_has_them_beside_the_priors_own_bits_on_the_same_examples():
  one = model(8, codes=True)  # 20 held-out examples in batches of 8
  found = prior_loss.measure(one)
  data = one.experiment.stage2.data
  sides = []
  for split, limit in (("train", baselines.EXAMPLES), ("test", 20)):
    with evaluation_batches(data, split=split, batch=50, limit=limit) as rows:
      x = np.concatenate([batch["x"][batch["mask"]] for batch in rows])
    sides.append(np.asarray(one.encode(x).codes).reshape(len(x), -1))
  marginal, first = bits(made(sides[0], 16), sides[1])
  assert sides[0].shape == (1500, 16) and found["counted_examples"] == 1500
  expected = {
    "marginal_bits_per_element": marginal,
    "marginal_bits_per_dim": 16 * marginal / 256,  # 16 codes of 256 pixels
    "first_order_bits_per_element": first,
    "first_order_bits_per_dim": 16 * first / 256,
  }
  assert {name: found[name] for name in expected} == pytest.approx(expected) and expected.keys() < KNOWN.keys()
  assert baselines.measure(model(8)) == {}  # of a flow on z
  assert baselines.measure(model(20, codes=True)) == pytest.approx(
    {n: found[n] for n in (*expected, "counted_examples")}
  )


def test_of_several_levels_a_place_has_as_many_histograms():
  made_one = micro.experiment(codes=True, gan=False)
  several = made_one.stage1.model.clone(bottleneck=ResidualVQ(EMAVQ(vocab=16, dim=4), quantizers=2))
  stage = dataclasses.replace(made_one.stage1, model=several)
  prior = made_one.stage2.prior
  prior = prior.clone(backbone=prior.backbone.clone(length=32, groups=2))
  two = dataclasses.replace(made_one.stage2, prior=prior)
  found = baselines.measure(model(20, codes=True, stage1=stage, stage2=two))
  assert found["marginal_bits_per_dim"] == pytest.approx(32 / 256 * found["marginal_bits_per_element"])
