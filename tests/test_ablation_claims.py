"""Claims on hand-made tables, and the intervals that they rest on."""

import numpy as np
import pytest

from latents.ablations import Against, Equal, Ranks, Stepwise, Table, Within, judge
from latents.ablations.base import read_table
from latents.declare import from_json, to_json
from latents.evaluate import interval


def table(**variants):
  seeds = max(map(len, variants.values()))
  return Table(tuple(range(seeds)), {"m": {name: tuple(v) for name, v in variants.items()}})


def against(**changes):
  return Against(**{"sentence": "b beats a.", "variant": "b", "control": "a", "column": "m", "direction": "higher",
                    "least": 1.0, **changes})  # fmt: skip


@pytest.mark.parametrize(
  ("a", "b", "verdict"),
  [
    ((1, 2, 3), (3, 4, 5), "shown"),
    ((3, 4, 5), (1, 2, 3), "contradicted"),
    ((1, 2, 3), (1.5, 2.5, 3.5), "not shown"),  # a sure difference that does not count
    ((1, 2, 3), (0, 4, 8), "not shown"),  # a large one that is not sure
    ((1,), (9,), "not shown"),  # one seed
    ((1, None, 3), (9, 2, None), "not shown"),  # one pair
    ((1, None, 3), (9, 2, 9), "shown"),  # two
  ],
)
def test_against(a, b, verdict):
  found = against().judge(table(a=a, b=b))
  assert found.verdict == verdict
  assert bool(found.why) == (verdict == "not shown")
  lower = against(variant="a", control="b", direction="lower").judge(table(a=a, b=b))
  assert lower.verdict == verdict  # the same said the other way round


def test_nothing_is_no_difference():
  for claim in (against(least=0.0), against(least=0.0, direction="lower")):
    assert claim.judge(table(a=(1, 2), b=(1, 2))).verdict == "not shown"


def test_pairs_are_of_one_seed():
  """The seeds' own spread, far larger than the difference, cancels."""
  found = against().judge(table(a=(0, 100, 200), b=(2, 102, 202)))
  (difference,) = found.differences
  assert (found.verdict, difference.mean, difference.low, difference.high) == ("shown", 2, 2, 2)


def test_one_seed_says_so():
  assert against().judge(table(a=(1,), b=(9,))).why == "one seed: there is no interval"
  assert against().judge(table(a=(None, None), b=(9, 9))).why == "not measured"


@pytest.mark.parametrize(
  ("c", "verdict"), [((4, 5, 6), "shown"), ((2.5, 3.5, 4.5), "not shown"), ((0, 1, 2), "contradicted")]
)
def test_stepwise_needs_every_step(c, verdict):
  claim = Stepwise(sentence="Up.", order=("a", "b", "c"), column="m", direction="higher", least=1.0)
  found = claim.judge(table(a=(0, 1, 2), b=(2, 3, 4), c=c))
  assert found.verdict == verdict and len(found.differences) == 2
  assert ("c - b" in found.why) == (verdict != "shown")


@pytest.mark.parametrize(
  ("b", "verdict"),
  [((1.1, 2.1, 2.9), "shown"), ((3, 4, 5), "contradicted"), ((1, 2, 4), "not shown"), ((1,), "not shown")],
)
def test_equal_is_shown_not_assumed(b, verdict):
  claim = Equal(sentence="The same.", variant="b", control="a", column="m", margin=0.5)
  assert claim.judge(table(a=(1, 2, 3)[: len(b)], b=b)).verdict == verdict


@pytest.mark.parametrize(
  ("a", "verdict"),
  [
    ((1, 2, 3), "shown"),
    ((0.9, 2, 3), "not shown"),
    ((4, 5, 6), "contradicted"),
    ((2,), "not shown"),
    ((), "not shown"),
  ],
)
def test_within_means_every_seed(a, verdict):
  found = Within(sentence="In it.", variant="a", column="m", low=1.0, high=3.0).judge(table(a=a, b=(0, 0, 0)))
  assert found.verdict == verdict and (found.differences[0].mean is None) == (not a)


@pytest.mark.parametrize(("direction", "verdict"), [("higher", "shown"), ("lower", "contradicted")])
def test_ranks(direction, verdict):
  claim = Ranks(sentence="Up.", order=("a", "b", "c"), column="m", direction=direction, least=0.9)
  assert claim.judge(table(a=(0, 1), b=(2, 3), c=(4, 5))).verdict == verdict
  mixed = claim.judge(table(a=(0, 5), b=(2, 3), c=(4, 1)))
  assert mixed.verdict == "not shown" and (mixed.differences[0].low, mixed.differences[0].high) == (-1, 1)
  assert claim.judge(table(a=(0,), b=(2,), c=(4,))).verdict == "not shown"


def test_ranks_by_another_column():
  values = {"x": {"a": (3, 3), "b": (2, 2), "c": (1, 1)}, "m": {"a": (0, 0), "b": (1, 1), "c": (2, 2)}}
  claim = Ranks(sentence="Against.", order=("a", "b", "c"), column="m", by="x", direction="lower", least=1.0)
  found = claim.judge(Table((0, 1), values))
  assert found.verdict == "shown" and found.differences[0].mean == -1


def test_intervals_by_hand():
  x = np.array([0.0, 1.0])  # means of the four resamples: 0, 1/2, 1/2, 1
  assert interval.mean_interval(x) == (0, 1)
  assert interval.mean_interval(x, 0.4) == (0.5, 0.5)
  assert interval.mean_interval(np.array([5.0])) is None
  assert interval.mean_interval(np.array([1.0, 7.0, 3.0])) == (1, 7)


@pytest.mark.parametrize("n", [3, 5, 6, 20])
def test_intervals_are_the_same_at_every_call_and_hold_the_mean(n):
  x = np.random.default_rng(n).normal(size=n)
  low, high = interval.mean_interval(x)
  assert (low, high) == interval.mean_interval(x)
  assert x.min() <= low < x.mean() < high <= x.max()
  assert interval.mean_interval(x, 0.5)[1] - interval.mean_interval(x, 0.5)[0] < high - low


def test_intervals_of_many_are_the_textbooks():
  """For 400 normal numbers the interval is 1.96 standard errors to both sides, within the bootstrap's own noise."""
  x = np.random.default_rng(1).normal(size=400)
  low, high = interval.mean_interval(x)
  error = 1.96 * x.std() / 20
  assert abs(low - (x.mean() - error)) < 0.05 * error and abs(high - (x.mean() + error)) < 0.05 * error


def test_spearman_by_hand():
  assert interval.ranks(np.array([5.0, 1.0, 5.0, 2.0])).tolist() == [3.5, 1, 3.5, 2]
  assert interval.spearman(np.array([1.0, 2, 3]), np.array([1.0, 3, 2])) == pytest.approx(0.5)  # 1 - 6*2/(3*8)
  assert interval.spearman(np.array([1.0, 2, 3]), np.ones(3)) == 0


CLAIMS = (
  against(),
  Stepwise(sentence="s", order=("a", "b"), column="m", direction="lower", least=0.5),
  Within(sentence="s", variant="a", column="m", low=0.0, high=1.0),
  Equal(sentence="e", variant="b", control="a", column="m", margin=0.5),
  Ranks(sentence="r", order=("a", "b"), column="m", direction="lower"),
)


def test_claims_are_stored_and_judged_again():
  stored = {"seeds": [0, 1], "values": {"m": {"a": [1, 2], "b": [3, None]}}, "claims": [to_json(c) for c in CLAIMS]}
  found, claims = read_table(stored)
  assert claims == CLAIMS and tuple(from_json(to_json(c)) for c in CLAIMS) == CLAIMS
  assert judge(claims, found) == judge(CLAIMS, table(a=(1, 2), b=(3, None)))
  assert [j["verdict"] for j in judge(claims, found)] == ["not shown"] * len(CLAIMS)
