"""Causal networks over a grid: who sees whom, exact sums of probability, one pass and many steps, conditions."""

import itertools
import math

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from latents.backbones import GatedPixelCNN, PixelCNN, PixelCNNPlus, PixelRNN, PixelSNAIL, PixelSNAILCodes
from latents.backbones.pixelrnn import skew, unskew
from latents.backbones.pixelsnail import attend_before
from latents.errors import UserError
from latents.nn.masked_conv import MaskedConv
from latents.nn.shifted_conv import ShiftedConv
from latents.priors import AutoregressivePrior, AutoregressiveVectors
from latents.priors.heads import LogisticMixture
from latents.types import Latent
from tests.members.grids import GRID_ELEMENTS, GRID_TOKENS
from tests.test_nn import drawn, normal, randomise

KEY = jax.random.key(0)
TOKENS = pytest.mark.parametrize(
  ("make", "groups", "sees"), [m[1:] for m in GRID_TOKENS], ids=[m[0] for m in GRID_TOKENS]
)
ELEMENTS = pytest.mark.parametrize("make", [m[1] for m in GRID_ELEMENTS], ids=[m[0] for m in GRID_ELEMENTS])


def codes(vocab: int, *shape: int, seed: int = 0):
  return jnp.asarray(np.random.default_rng(seed).integers(0, vocab, shape), jnp.int32)


def influence(run, length: int, vocab: int, sets: int = 4) -> np.ndarray:
  """[L,L] bool: whether row i of the logits changes with token j, for one of several pictures. run: tokens [L+1,L]."""
  found = np.zeros((length, length), bool)
  for seed in range(sets):
    one = codes(vocab, 1, length, seed=seed)
    changed = (one + (1 + seed % (vocab - 1)) * jnp.eye(length, dtype=jnp.int32)) % vocab  # row j has another token j
    logits = np.asarray(run(jnp.concatenate([one, changed])))
    found |= (logits[1:] != logits[0]).any(-1).T
  return found


def before(shape: tuple[int, ...], sees: str) -> np.ndarray:
  """[L,L] bool: what a row must see, from the places alone: all that come before, in raster order with the channels
  innermost. "triangle": nothing that is further to the right than it is above. "diagonal": not the last token of the
  row above, where it is further to the right than the one column that the first layer sees."""
  places = list(itertools.product(*map(range, shape)))
  found = np.zeros((len(places), len(places)), bool)
  for (i, (row, column, *_)), (j, (row_, column_, *channel_)) in itertools.product(enumerate(places), repeat=2):
    aside = column_ - column
    hidden = {
      "all": False,
      "triangle": row_ < row and aside > row - row_,
      "diagonal": row_ == row - 1 and (column_, *channel_) == places[-1][1:] and aside > 1,
    }[sees]
    found[i, j] = j < i and not hidden
  return found


@TOKENS
def test_a_row_sees_what_comes_before_and_nothing_else(make, groups, sees):
  """Exactly: rows up to a changed token, that token's own included, are the same to the last bit. And every row is told
  its label."""
  vocab, shape = 5, (5, 5, 2)[: 1 + max(groups[:2])]
  model = make(vocab, shape, 2)
  length = model.length
  whole = {"label": jnp.zeros(length + 1, jnp.int32), "drop": jnp.ones(length + 1, bool)}
  params = drawn(model, codes(vocab, length + 1, length), whole, scale=0.4)
  run = jax.jit(lambda tokens, cond: model.apply(params, tokens, cond))
  np.testing.assert_array_equal(influence(lambda tokens: run(tokens, whole), length, vocab), before(shape, sees))
  same = codes(vocab, 1, length).repeat(length + 1, 0)
  told = {"label": jnp.arange(length + 1) % 2, "drop": jnp.arange(length + 1) // 2 % 2 == 1}
  y = np.asarray(run(same, told))
  assert y.shape == (length + 1, length, vocab) and y.dtype == np.float32
  assert (y[0] != y[1]).any(-1).all() and (y[0] != y[2]).any(-1).all()
  np.testing.assert_array_equal(y[2], y[3])


def test_the_blind_spot_of_a_plain_pixelcnn_stays_at_any_depth():
  """With a first layer of 7 taps a row up is seen 3 columns to the right; no depth brings the fourth."""
  model = PixelCNN(3, (2, 8), width=6, depth=6, hidden=8)
  params = drawn(model, codes(3, 1, 16), None, scale=0.4)
  found = influence(jax.jit(lambda tokens: model.apply(params, tokens, None)), 16, 3).reshape(2, 8, 2, 8)
  for column in range(8):
    assert found[1, column, 0].tolist() == [other <= column + 3 for other in range(8)]


@ELEMENTS
def test_the_jacobian_of_pixels_is_strictly_lower(make):
  """d out_i / d x_j at (position, channel): exactly 0 for j >= i, and not 0 for every j < i."""
  model = make((4, 4, 2), 7, 0)
  x = normal(1, 16, 2)
  params = drawn(model, x, None, scale=0.5)
  slopes = np.asarray(jax.jit(jax.jacrev(lambda x: model.apply(params, x, None)[0]))(x))[:, :, 0]  # [L,out,L,C]
  np.testing.assert_array_equal((slopes != 0).any(1), np.repeat(np.tri(16, k=-1, dtype=bool)[..., None], 2, -1))


def stepped(model, params, x, cond) -> np.ndarray:
  """[B,L,V]: the rows that `step` gives, told the elements of x [B,L,..] one after the other."""

  def step(cache, index):
    row, cache = model.apply(params, x[:, index - 1], cond, index, cache, method="step")
    return cache, row

  return np.asarray(jax.jit(lambda: jax.lax.scan(step, model.cache(len(x)), jnp.arange(model.length))[1])()).swapaxes(
    0, 1
  )


STEPPED = {
  "channels": (PixelCNN(5, (3, 2, 2), width=8, depth=1, first=3, hidden=12, classes=3), codes(5, 2, 12)),
  "rows": (PixelRNN(5, (3, 3), kind="row", width=4, depth=1, first=3, hidden=4, classes=3), codes(5, 2, 9)),
  "pixels": (PixelCNNPlus((2, 4, 3), 9, width=6, blocks=1, scales=2, classes=3), normal(2, 8, 3)),
}


@pytest.mark.parametrize("name", STEPPED)
def test_steps_give_the_rows_of_one_pass(name):
  (model, x), cond = STEPPED[name], {"label": jnp.array([0, 2])}
  params = drawn(model, x, cond, scale=0.4)
  whole = jax.jit(lambda: model.apply(params, x, cond))()
  assert whole.dtype == jnp.float32 and np.std(whole[0] - whole[1]) > 1e-3
  np.testing.assert_allclose(stepped(model, params, x, cond), whole, atol=1e-5)


def total(prior, shape: tuple[int, ...], vocab: int) -> float:
  """The probabilities of all pictures, summed."""
  every = np.array(list(itertools.product(range(vocab), repeat=math.prod(shape)))).reshape(-1, *shape)
  latent = Latent(codes=jnp.asarray(every, jnp.int32))
  params = randomise(jax.eval_shape(lambda: prior.init(KEY, latent, None, method="nll")), 0.5)
  nll = jax.jit(lambda params: prior.apply(params, latent, None, method="nll"))(params)
  assert np.ptp(nll) > 0.1  # not all the same
  return float(np.exp(-np.asarray(nll, np.float64)).sum())


@TOKENS
def test_the_probabilities_of_all_pictures_sum_to_one(make, groups, sees):
  for shape in [(2, 2)] + [(1, 2, g) for g in groups if g == 3]:
    assert total(AutoregressivePrior(make(2, shape, 0)), shape, 2) == pytest.approx(1, abs=1e-5)


@ELEMENTS
def test_the_probabilities_of_all_pictures_of_pixels_sum_to_one(make):
  for shape in ((2, 2), (1, 2, 3)):
    head = LogisticMixture(dim=3 if len(shape) == 3 else 1, components=2, levels=2)
    model = make((*shape[:2], head.dim), head.out, 0)
    model = model.clone(scales=shape[0]) if isinstance(model, PixelCNNPlus) else model
    assert total(AutoregressiveVectors(backbone=model, head=head), shape, 2) == pytest.approx(1, abs=1e-5)


@pytest.mark.parametrize(
  "make",
  [
    lambda **told: GatedPixelCNN(5, (4, 4), width=5, depth=1, size=3, first=3, hidden=7, **told),
    lambda **told: PixelSNAILCodes(5, (4, 4), width=8, blocks=1, resnets=1, **told),
  ],
  ids=["gated", "snail"],
)
def test_codes_above_are_told_where_they_lie(make):
  model = make(above=((2, 2, 6), (1, 1, 3)), above_depth=0, classes=2)
  assert model.conditions == ("label", "above")
  tokens, above = codes(5, 1, 16), codes(6, 1, 5).at[:, 4].set(1)
  params = drawn(model, tokens, {"above": above, "label": jnp.zeros(1, jnp.int32)}, scale=0.4)
  run = jax.jit(lambda tokens, above: model.apply(params, tokens, {"above": above, "label": jnp.zeros(1, jnp.int32)}))
  y = np.asarray(run(tokens, above)).reshape(4, 4, 5)
  last = np.asarray(run(tokens, above.at[:, 3].set((above[0, 3] + 1) % 6))).reshape(4, 4, 5)
  changed = (y != last).any(-1)
  assert changed[2:, 2:].all() and not changed[:2].any()  # of the last quarter; what comes before sees none of it
  assert (y != np.asarray(run(tokens, above.at[:, 4].set(2))).reshape(4, 4, 5)).any(-1).all()  # the one of all
  again = make(above=((2, 2, 6),), above_depth=1)
  square = codes(6, 1, 2, 2)
  params = drawn(again, tokens, {"above": square})
  run = jax.jit(lambda above, drop: again.apply(params, tokens, {"above": above, "drop": drop}))
  flat = run(square, jnp.zeros(1, bool))
  np.testing.assert_array_equal(run(square, jnp.ones(1, bool)), flat)  # what lies above is known always
  assert (run((square + 1) % 6, jnp.zeros(1, bool)) != flat).any(-1).all()
  for cond, words in (
    (None, "conditioned on 'above', but the condition has nothing"),
    ({"above": above}, "there are 5"),
  ):
    with pytest.raises(UserError, match=words):
      again.apply(params, tokens, cond)
  with pytest.raises(UserError, match="does not divide"):
    jax.eval_shape(lambda: make(above=((3, 3, 6),)).init(KEY, tokens, {"above": codes(6, 1, 9)}))


def test_skew_moves_rows_and_unskew_moves_them_back():
  for shape in ((2, 3, 4, 2), (1, 4, 1, 3), (1, 1, 5, 1)):
    x = normal(*shape)
    y = np.asarray(skew(x))
    assert y.shape == (shape[0], shape[1], shape[2] + shape[1] - 1, shape[3])
    for i in range(shape[1]):
      np.testing.assert_array_equal(y[:, i, i : i + shape[2]], x[:, i])
    assert np.count_nonzero(y) == x.size
    np.testing.assert_array_equal(unskew(skew(x)), x)


def test_a_masked_kernel_is_a_whole_kernel_of_which_the_rest_is_zero():
  x, layer = normal(2, 6, 5, 4), MaskedConv(6, (5, 3), "A", groups=2)
  params = drawn(layer, x)
  kernel = np.zeros((5, 3, 4, 6), np.float32)
  kernel[:3] = params["params"]["kernel"]
  kernel[2, 2] = 0
  for c, f in itertools.product(range(4), range(6)):
    if c % 2 >= f % 2:
      kernel[2, 1, c, f] = 0
  numbers = ("NHWC", "HWIO", "NHWC")
  wanted = jax.lax.conv_general_dilated(x, kernel, (1, 1), "SAME", dimension_numbers=numbers)
  np.testing.assert_allclose(layer.apply(params, x), wanted + params["params"]["bias"], atol=1e-4)


def test_doubling_is_the_transposed_convolution():
  """Every element of x, times the kernel, is added where it falls: rows from 2 i on, columns about 2 j for "up"."""
  x = normal(1, 3, 2, 2)
  for look, size, aside in (("up", (2, 3), 1), ("corner", (2, 2), 0)):
    layer = ShiftedConv(4, look, double=True)
    params = drawn(layer, x)
    own = {name: np.asarray(a) for name, a in params["params"]["conv"].items()}
    kernel = own["kernel"] * own["scale"] / np.sqrt((own["kernel"] ** 2).sum((0, 1, 2)))
    wanted = np.zeros((6 + 2, 4 + 4, 4), np.float32)
    for i, j, r, c in itertools.product(range(3), range(2), range(size[0]), range(size[1])):
      tap = kernel[size[0] - 1 - r, size[1] - 1 - c]
      wanted[2 * i + r, 2 * j + c - aside + 1] += np.asarray(x[0, i, j]) @ tap
    np.testing.assert_allclose(layer.apply(params, x)[0], wanted[:6, 1:5] + own["bias"], atol=1e-4)


def test_the_first_place_attends_to_nothing_and_none_to_itself():
  q, k, v = normal(1, 4, 3), normal(1, 4, 3, seed=1), normal(1, 4, 2, seed=2)
  y = np.asarray(attend_before(q, k, v), np.float64)[0]
  assert not y[0].any()
  for i in range(1, 4):
    chances = np.exp(np.asarray(q[0, i] @ k[0, :i].T, np.float64) / math.sqrt(3))
    np.testing.assert_allclose(y[i], chances / chances.sum() @ np.asarray(v[0, :i]), atol=1e-5)
  slopes = jax.grad(lambda k: attend_before(q, k, v).sum())(k)
  assert np.isfinite(slopes).all()


def count(model, *args) -> int:
  return sum(a.size for a in jax.tree.leaves(jax.eval_shape(lambda: model.init(KEY, *args))))


def test_sizes_at_paper_scale():
  """The papers say none; counted here from their equations, layer by layer."""

  def conv(taps: int, c: int, f: int) -> int:
    return taps * c * f + f

  x = jnp.zeros((1, 1024, 3))
  normed = lambda taps, c, f: taps * c * f + 2 * f
  f = 160
  block = lambda taps, beside: (
    normed(taps, 2 * f, f) + normed(taps, 2 * f, 2 * f) + (beside and normed(1, 2 * beside, f))
  )
  first = normed(6, 4, f) + normed(3, 4, f) + normed(2, 4, f)
  down, up = 15 * (block(6, 0) + block(4, f)), 17 * (block(6, f) + block(4, 2 * f))
  between = 4 * (normed(6, f, f) + normed(4, f, f))
  assert count(PixelCNNPlus((32, 32, 3), 100), x, None) == first + down + up + between + normed(1, f, 100)
  f = 256
  whole = lambda taps, c, beside=0: normed(taps, c, c) + normed(taps, c, 2 * c) + (beside and normed(1, beside, c))
  heads = whole(1, f + 5) + normed(1, f + 5, 144) + whole(1, f + 2) + normed(1, f + 2, 16) + whole(1, f, 128)
  wanted = normed(3, 4, f) + normed(2, 4, f) + 12 * (4 * whole(4, f) + heads) + normed(1, f, 100)
  assert count(PixelSNAIL((32, 32, 3), 100), x, None) == wanted
  tokens, h = jnp.zeros((1, 3072), jnp.int32), 128
  ends = conv(1, 2 * h, 1024) + conv(1, 1024, 768) + conv(28, 3, 2 * h)
  stack = 15 * (conv(1, 2 * h, h) + conv(6, h, h) + conv(1, h, 2 * h))
  assert count(PixelCNN(256, (32, 32, 3)), tokens, None) == stack + ends
  lstm = lambda taps, state: conv(taps, 2 * h, 4 * h) + state * h * 4 * h + 2 * h
  wanted = ends + 12 * (lstm(2, 3) + conv(1, h, 2 * h))
  assert count(PixelRNN(256, (32, 32, 3), kind="row"), tokens, None) == wanted
  wanted = ends + 12 * (2 * lstm(1, 2) + conv(1, h, 2 * h))
  assert count(PixelRNN(256, (32, 32, 3), kind="diagonal"), tokens, None) == wanted
  layer = lambda c, n, p=384: (
    conv((n // 2 + 1) * n, c, 2 * p) + conv(n // 2 + 1, c, 2 * p) + 4 * p * p + conv(1, p, 1024) + conv(1, p, p)
  )
  ends = conv(1, 1024, 1024) + conv(1, 1024, 768)
  assert count(GatedPixelCNN(256, (32, 32, 3)), tokens, None) == layer(3, 7) + 20 * layer(384, 5) + ends


def test_grids_that_cannot_be():
  tokens = jnp.zeros((1, 9), jnp.int32)
  for model, words in (
    (PixelCNN(4, (3, 3, 1, 1)), r"a grid \(H,W\) or \(H,W,C\)"),
    (PixelRNN(4, (3, 4)), r"models \[B,12\] tokens"),
    (PixelSNAILCodes(4, (1, 3, 3)), "one code a place, not 3"),
  ):
    with pytest.raises(UserError, match=words):
      jax.eval_shape(lambda m=model: m.init(KEY, tokens, None))
  for model, words in (
    (PixelCNNPlus((3, 3, 1), 5), r"3 scales halve a picture of \(3, 3\) 2 times"),
    (PixelSNAIL((3, 3), 5), r"pixels of \(H,W,C\)"),
    (PixelSNAIL((3, 3, 2), 5), r"models \[B,9,2\] numbers"),
  ):
    with pytest.raises(UserError, match=words):
      jax.eval_shape(lambda m=model: m.init(KEY, jnp.zeros((1, 9, 1)), None))
