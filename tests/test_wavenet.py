"""WaveNet: what a row sees, by formula and by perturbation; a cache that is the full pass; the layers by hand."""

import itertools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from latents.backbones import WaveNet
from latents.errors import UserError
from latents.nn.streams import streams
from latents.priors import AutoregressivePrior
from latents.types import Latent
from tests.test_nn import drawn

KEY = jax.random.key(0)
LABEL = {"label": jnp.array([0, 2])}


def network(**changes) -> WaveNet:
  fields = {"length": 24, "width": 4, "gate": 5, "skip": 6, "cycle": 3, "stacks": 2, "classes": 3, **changes}
  return WaveNet(7, **fields)


def tokens(*shape: int, seed: int = 0) -> jax.Array:
  return jnp.asarray(np.random.default_rng(seed).integers(0, 7, shape), jnp.int32)


def stepwise(net, params, x, cond) -> jax.Array:
  """Logits [B,T,V] token after token, each given the one before it; the first is given one that is none."""
  before = jnp.concatenate([jnp.full_like(x[:, :1], 3), x[:, :-1]], 1)

  def step(cache, at):
    logits, cache = net.apply(params, at[0], cond, at[1], cache, method="step")
    return cache, logits

  run = jax.jit(lambda params, before: jax.lax.scan(step, net.cache(len(x)), (before.T, jnp.arange(x.shape[1])))[1])
  return jnp.swapaxes(run(params, before), 0, 1)


def reach(net, params) -> np.ndarray:
  """[T,T] bool: whether row i changes with token j."""
  x = tokens(1, net.length)
  run = jax.jit(lambda x: net.apply(params, x, None))
  one = run(x)[0]
  changed = [np.abs(run(x.at[0, j].set((x[0, j] + 1) % 7))[0] - one).max(-1) > 0 for j in range(net.length)]
  return np.stack(changed, 1)


@pytest.mark.parametrize(
  ("changes", "field"),
  [
    ({}, 1 + 2 * 7 + 1),
    ({"cycle": 2, "stacks": 1}, 3 + 2),
    ({"kernel": 3, "cycle": 2, "stacks": 1}, 2 * 3 + 1 + 2),
    ({"kernel": 1, "length": 4}, 1),
  ],
)
def test_a_row_sees_the_tokens_before_it_as_far_as_its_receptive_field(changes, field):
  """(kernel - 1) sum of dilations + 1, and kernel - 1 of the first convolution."""
  net = network(classes=0, **changes)
  assert net.receptive_field == field
  params = drawn(net, tokens(1, net.length), None, scale=0.7)
  row, column = np.indices((net.length, net.length))
  assert np.array_equal(reach(net, params), (column < row) & (column >= row - field))


def test_sizes_of_the_published_code():
  """ibab/tensorflow-wavenet's default: five times dilations 1 to 512, which see 5,117 tokens."""
  net = WaveNet(256, 2**14)
  assert net.receptive_field == 5117 and len(net.dilations) == 50 and net.dilations[9:11] == (512, 1)
  count = sum(a.size for a in jax.tree.leaves(jax.eval_shape(net.init, KEY, jnp.zeros((1, 2**14), jnp.int32), None)))
  layer = (2 * 32 * 64 + 64) + (32 * 512 + 512) + (32 * 32 + 32)
  # the last layer's residual output goes nowhere, and is not there
  assert count == 2 * 256 * 32 + 50 * layer - (32 * 32 + 32) + (512 * 512 + 512) + (512 * 256 + 256)


@pytest.mark.parametrize("changes", [{}, {"kernel": 3, "length": 20}, {"kernel": 1}, {"cycle": 5, "stacks": 1}])
def test_cached_steps_are_the_full_pass(changes):
  """Beyond the longest dilation, and where that is longer than the sequence."""
  net = network(**changes)
  params = drawn(net, tokens(2, net.length), LABEL)
  x = tokens(2, net.length, seed=1)
  full = net.apply(params, x, LABEL)
  assert np.abs(stepwise(net, params, x, LABEL) - full).max() <= 1e-5 * np.abs(full).max()
  assert np.abs(full - net.apply(params, x, None)).max() > 1e-2


def test_what_a_prior_draws_with_guidance_is_what_the_full_pass_finds_likeliest():
  net = network(length=30)
  prior = AutoregressivePrior(backbone=net, temperature=0.0, guidance=3.0)
  params = drawn(net, tokens(2, 30), LABEL, scale=0.5)
  draw = jax.jit(
    lambda p: prior.apply({"params": {"backbone": p["params"]}}, LABEL, shape=(30,), method="sample", rngs=streams(KEY))
  )
  codes = draw(params).codes
  u, c = (net.apply(params, codes, cond) for cond in (None, LABEL))
  logits = u + 3 * (c - u)
  top = jnp.sort(logits, -1)
  assert (top[..., -1] - top[..., -2]).min() > 1e-4 and len(np.unique(codes)) > 2  # none is a matter of rounding
  assert np.array_equal(codes, jnp.argmax(logits, -1))


def test_layers_by_hand():
  """Equation 2 and figure 4 in numpy, loops over tokens."""
  net = network(length=9, cycle=2, stacks=1, classes=2)
  x, label = tokens(1, 9), 1
  params = drawn(net, x, {"label": jnp.array([label])})
  p = jax.tree.map(lambda a: np.asarray(a, np.float64), params["params"])
  table = p["embed"]["embedding"].reshape(7, 2, 4)
  h = np.zeros((9, 4))
  for t in range(9):
    for tap in range(2):
      if t - 1 - tap >= 0:
        h[t] += table[x[0, t - 1 - tap], tap]
  total, told = 0, p["label"]["embedding"][label].reshape(2, 10)
  for i, dilation in enumerate((1, 2)):
    layer = p[f"layers_{i}"]
    past = np.concatenate([np.zeros((dilation, 4)), h])[:9]
    y = np.concatenate([h, past], -1) @ layer["dilated"]["kernel"] + layer["dilated"]["bias"] + told[i]
    out = np.tanh(y[:, :5]) / (1 + np.exp(-y[:, 5:]))
    total = total + out @ layer["skip"]["kernel"] + layer["skip"]["bias"]
    if i == 0:
      h = h + out @ layer["out"]["kernel"] + layer["out"]["bias"]
  hidden = np.maximum(np.maximum(total, 0) @ p["hidden"]["kernel"] + p["hidden"]["bias"], 0)
  logits = hidden @ p["head"]["kernel"] + p["head"]["bias"]
  np.testing.assert_allclose(net.apply(params, x, {"label": jnp.array([label])})[0], logits, atol=1e-5)
  assert set(p["layers_1"]) == {"dilated", "skip"}


def test_all_logits_are_zero_at_the_start_and_probabilities_sum_to_one():
  net = WaveNet(3, 4, width=3, gate=3, skip=3, cycle=2, stacks=1)
  every = jnp.asarray(list(itertools.product(range(3), repeat=4)))
  prior = AutoregressivePrior(backbone=net)
  rngs = {"params": KEY, **streams(KEY)}
  start = prior.init(rngs, Latent(codes=every), None, train=False, method="loss")
  chances = lambda params: np.exp(-prior.apply(params, Latent(codes=every), None, method="nll"))
  np.testing.assert_allclose(chances(start), 1 / 81, rtol=1e-5)
  found = chances(drawn(prior, Latent(codes=every), None, train=False, method="loss", scale=1.0))
  assert found.std() > 0.01 / 81 and found.sum() == pytest.approx(1, abs=1e-5)


def test_another_length_and_no_layers_are_one_line():
  with pytest.raises(UserError, match=r"^this WaveNet models \[B,24\] tokens, got \(2, 8\)"):
    jax.eval_shape(network().init, KEY, tokens(2, 8), None)
  with pytest.raises(UserError, match=r"^WaveNet's stacks is 0: it must be at least 1"):
    jax.eval_shape(network(stacks=0).init, KEY, tokens(2, 24), None)
