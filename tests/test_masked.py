"""MaskGIT: how many tokens each step keeps, which ones, what they are drawn from; the loss of masked codes alone."""

import itertools
import math

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from experiments.codes import maskgit
from latents.backbones import MaskedTransformer
from latents.errors import UserError
from latents.nn.condition import labels
from latents.priors import MaskedPrior
from latents.priors.masked import left_masked, masked_count, remask
from latents.types import Latent
from tests.test_nn import drawn, normal
from tests.test_priors import LABEL, draw, latent_of, start

KEY = jax.random.key(0)
V = 5


class Given(nn.Module):
  """Logits that are parameters, a row of labels apart; it says which tokens it was shown."""

  length: int
  vocab: int = V
  groups: int = 1
  classes: int = 0
  conditions = ()

  @nn.compact
  def __call__(self, tokens, cond, *, train: bool = False):
    self.sow("intermediates", "tokens", tokens)
    table = self.param("table", nn.initializers.normal(), (self.classes + 1, self.length, self.vocab))
    return table[labels(cond, self.classes, len(tokens))]


class Told(Given):
  conditions = ("label",)


class Oracle(nn.Module):
  """The exact conditionals of a joint [V,...,V], whatever is masked."""

  joint: tuple
  length: int = 3
  vocab: int = 3
  groups: int = 1
  classes: int = 0
  conditions = ()

  @nn.compact
  def __call__(self, tokens, cond, *, train: bool = False):
    states = jnp.asarray(np.indices((self.vocab,) * self.length).reshape(self.length, -1).T)
    fits = ((tokens[:, None] == states) | (tokens[:, None] == self.vocab)).all(-1)
    mass = fits * jnp.asarray(self.joint)
    return jnp.log(jnp.einsum("bs,snv->bnv", mass, jax.nn.one_hot(states, self.vocab)) + 1e-30)


def test_the_numbers_that_each_step_reveals():
  left = left_masked(256, 8)
  assert (-np.diff([256, *left])).tolist() == [5, 15, 24, 31, 39, 45, 48, 49]
  for steps in (1, 7, 40):
    assert left_masked(40, steps)[-1] == 0 and (np.diff([40, *left_masked(40, steps)]) < 0).all()
  assert (np.diff([9, *left_masked(9, 9)]) == -1).all()
  for steps in (0, 10):
    with pytest.raises(UserError, match="9 tokens are filled in 1 to 9 steps"):
      left_masked(9, steps)


def test_known_tokens_stay_and_the_least_sure_are_masked_again():
  tokens = jnp.array([[9, 3, 9, 9, 1]])[..., None]
  picks = jnp.array([[4, 5, 6, 7, 8]])[..., None]
  sure = jnp.array([[-1.0, -99.0, -3.0, -2.0, -99.0]])
  now, filled = remask(tokens, picks, sure, jnp.array(2), 9)
  assert filled[0, :, 0].tolist() == [4, 3, 6, 7, 1] and now[0, :, 0].tolist() == [4, 3, 9, 9, 1]
  tied = remask(tokens, picks, jnp.zeros((1, 5)), jnp.array(1), 9)[0]
  assert tied[0, :, 0].tolist() == [9, 3, 6, 7, 1]  # of equal ones the first


@pytest.mark.parametrize("groups", [1, 2])
def test_the_way_to_a_sample(groups: int):
  """What is revealed never changes, as many more as planned are each time, all codes of a place together."""
  prior = MaskedPrior(MaskedTransformer(V, 16, 1, 2, length=12 * groups, classes=3, groups=groups), steps=5)
  shape = (3, 4) if groups == 1 else (3, 4, 2)
  params = start(prior, latent_of(shape, V))
  run = jax.jit(lambda p: prior.apply(p, LABEL, shape=shape, guidance=2.0, method="walk", rngs={"prior": KEY}))
  tokens, filled = (np.asarray(a) for a in run(params))
  masked = tokens == V
  assert masked.any(-1).sum(-1).tolist() == [[left] * 4 for left in left_masked(12, 5)]
  assert np.array_equal(masked.any(-1), masked.all(-1))
  assert (filled < V).all()
  for before, after in itertools.pairwise(tokens):
    known = before != V
    assert np.array_equal(before[known], after[known])
  sample = np.asarray(draw(prior, params, LABEL, shape, guidance=2.0).codes)
  assert np.array_equal(sample.reshape(filled[-1].shape), filled[-1])
  assert np.array_equal(filled[-1], tokens[-1])  # nothing is left masked


def chi_square(codes: np.ndarray, joint: np.ndarray) -> float:
  counts = np.bincount(codes @ [9, 3, 1], minlength=27)
  return float((np.square(counts - len(codes) * joint) / (len(codes) * joint)).sum())


def test_exact_conditionals_in_random_order_give_the_joint():
  joint = np.exp(normal(27, seed=3) * 1.2)
  joint = np.asarray(joint / joint.sum(), np.float64)
  oracle = Oracle(tuple(joint.tolist()))
  made = lambda **fields: np.asarray(draw(MaskedPrior(oracle, steps=3, **fields), {}, None, (3,), count=20_000).codes)
  assert chi_square(made(choice=1e6), joint) < 54.1  # the 0.999 quantile at 26 degrees of freedom
  assert chi_square(made(choice=0.0), joint) > 500  # the surest first: no longer the joint
  at_once = MaskedPrior(oracle, steps=1, choice=1e6)
  assert chi_square(np.asarray(draw(at_once, {}, None, (3,), count=20_000).codes), joint) > 500  # nor all at once


def test_without_temperatures_it_is_one_sample_with_guidance_in_it():
  prior = MaskedPrior(Told(6, classes=3), steps=3, temperature=0.0, choice=0.0)
  params = start(prior, latent_of((6,), V))
  table = params["params"]["backbone"]["table"]
  for scale in (0.0, 1.0, 3.0):
    u, c = table[3], table[LABEL["label"]]
    for key in (KEY, jax.random.key(1)):
      codes = prior.apply(params, LABEL, shape=(6,), guidance=scale, method="sample", rngs={"prior": key}).codes
      assert np.array_equal(codes, np.argmax(u + scale * (c - u), -1))


@pytest.mark.parametrize("groups", [1, 2])
def test_the_loss_is_of_masked_codes_alone(groups: int):
  length = 6 * groups
  prior, latent = MaskedPrior(Given(length, groups=groups)), latent_of((6, groups), V, 1)
  latent = latent if groups > 1 else Latent(codes=latent.codes[..., 0])
  params = start(prior, latent)

  def value(params):
    terms, state = prior.apply(
      params, latent, None, train=True, method="loss", rngs={"prior": KEY}, mutable=["intermediates"]
    )
    return terms["masked"], state["intermediates"]["backbone"]["tokens"][0]

  (loss, tokens), slope = jax.value_and_grad(value, has_aux=True)(params)
  hidden, table = np.asarray(tokens == V)[0], params["params"]["backbone"]["table"][0]
  flat = np.asarray(latent.codes).reshape(-1)
  assert np.array_equal(np.asarray(tokens)[0][~hidden], flat[~hidden]) and 0 < hidden.sum() < length
  assert np.array_equal(hidden[::groups], hidden[groups - 1 :: groups])
  assert np.array_equal(np.any(slope["params"]["backbone"]["table"][0], -1), hidden)
  log_p = np.asarray(jax.nn.log_softmax(table))
  by_hand = -(0.9 * log_p[np.arange(length), flat] + 0.1 * log_p.mean(-1))[hidden].mean()
  assert float(loss) == pytest.approx(by_hand, rel=1e-5)


def test_how_many_are_masked_in_training():
  assert masked_count(jnp.array([0.0, 0.5, 0.999999]), 64).tolist() == [64, 46, 1]
  prior, latent = MaskedPrior(Given(64)), Latent(codes=jnp.zeros((4000, 64), jnp.int32))
  params = {"params": {"backbone": {"table": jnp.zeros((1, 64, V))}}}
  state = prior.apply(
    params, latent, None, train=False, method="loss", rngs={"prior": KEY}, mutable=["intermediates"]
  )[1]  # fmt: skip
  masked = np.asarray(state["intermediates"]["backbone"]["tokens"][0] == V)
  share = masked.mean(1)
  assert abs(share.mean() - 2 / math.pi) < 0.02 and abs(share.std() - math.sqrt(0.5 - 4 / math.pi**2)) < 0.02
  assert np.abs(masked.mean(0) - share.mean()).max() < 0.04  # every place alike


def test_a_place_is_told_by_all_its_codes():
  model = MaskedTransformer(V, 16, 1, 2, length=6, groups=3)
  tokens = jnp.array([[0, 1, 2, 3, 4, 0]])
  params = drawn(model, tokens, None)
  logits = model.apply(params, tokens, None)
  assert logits.shape == (1, 6, V)
  swapped = model.apply(params, jnp.array([[1, 0, 2, 3, 4, 0]]), None)  # 0 and 1 are other codes in another group
  assert np.abs(logits - swapped)[0, 3:].max() > 1e-4
  assert np.isfinite(model.apply(params, jnp.full((1, 6), V), None)).all()


def test_at_paper_scale_both_stages_have_the_papers_227_million_numbers():
  made = maskgit.experiment("paper")
  assert made.stage2 is not None
  rngs = {"params": KEY, "prior": KEY, "dropout": KEY, "bottleneck": KEY, "encoder": KEY, "decoder": KEY}
  size = lambda tree: sum(math.prod(a.shape) for a in jax.tree.leaves(tree["params"]))
  codes = Latent(codes=jnp.zeros((1, 16, 16), jnp.int32))
  prior = jax.eval_shape(
    lambda: made.stage2.prior.init(rngs, codes, {"label": jnp.zeros(1, int)}, train=True, method="loss")
  )
  one = jax.eval_shape(lambda: made.stage1.model.init(rngs, jnp.zeros((1, 256, 256, 3)), train=True))
  block = 12 * 768**2 + 13 * 768
  outside = (1025 + 1001) * 768 + 257 * 768 + 768**2 + 768 + 2 * 2 * 768 + 1024
  assert size(prior) == 24 * block + outside
  assert abs(size(prior) + size(one) - 227e6) < 3e6


def test_mistakes_are_one_clear_line():
  prior = MaskedPrior(MaskedTransformer(V, 16, 1, 2, length=8, groups=2))
  rngs = {"params": KEY, "prior": KEY}
  init = lambda latent: jax.eval_shape(lambda: prior.init(rngs, latent, None, train=True, method="loss"))
  with pytest.raises(UserError, match="is continuous"):
    init(latent_of((4, 2), None))
  with pytest.raises(UserError, match="2 codes a place"):
    init(latent_of((2, 4), V))
  with pytest.raises(UserError, match="models 8 tokens"):
    init(latent_of((3, 2), V))
  with pytest.raises(UserError, match="some are left out"):
    init(latent_of((4, 2), V).replace(mask=jnp.ones((4, 4), bool)))
  with pytest.raises(UserError, match="4 tokens are filled in 1 to 4 steps, not 9"):
    jax.eval_shape(lambda: prior.clone(steps=9).apply({}, None, shape=(4, 2), method="sample", rngs=rngs))
