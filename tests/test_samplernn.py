"""SampleRNN: what each tier sees, steps and chunks that are the full pass, and the layers by hand."""

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from latents.backbones import SampleRNN
from latents.errors import UserError
from latents.nn.streams import streams
from latents.nn.weight_norm import WeightNormDense
from latents.priors import AutoregressivePrior
from tests.test_nn import drawn, normal
from tests.test_wavenet import KEY, LABEL, reach, stepwise, tokens

THREE, TWO = (6, 2), (4,)


def network(**changes) -> SampleRNN:
  return SampleRNN(7, **{"length": 24, "width": 5, "frames": THREE, "embedding": 3, "classes": 3, **changes})


def started(net: SampleRNN):
  """Random parameters whose kernels are as long as at the start, and with which few hidden units are always off."""
  params = drawn(net, tokens(2, net.length), LABEL if net.classes else None)

  def long(path, a):
    words = [key.key for key in path]
    return jnp.full_like(a, 1.5) if "scale" in words[-1] else a + ("hidden" in words[-2] and words[-1] == "bias")

  return jax.tree_util.tree_map_with_path(long, params)


@pytest.mark.parametrize("frames", [THREE, TWO, (8, 4, 1)])
def test_every_row_sees_all_tokens_before_it_and_no_other(frames):
  net = network(classes=0, frames=frames, length=16 if frames[0] == 8 else 12)
  assert np.array_equal(reach(net, started(net)), np.tri(net.length, k=-1, dtype=bool))


@pytest.mark.parametrize(("changes"), [{}, {"frames": TWO, "depth": 2}, {"frames": (8, 4, 1), "classes": 0}])
def test_cached_steps_are_the_full_pass(changes):
  net = network(**changes)
  params, cond = started(net), LABEL if net.classes else None
  x = tokens(2, net.length, seed=1)
  full = net.apply(params, x, cond)
  assert np.abs(stepwise(net, params, x, cond) - full).max() <= 1e-5 * np.abs(full).max()
  assert np.std(full, 1).min() > 1e-2 and np.abs(full[0] - full[1]).max() > 0.1  # it reads its tokens


@pytest.mark.parametrize("frames", [THREE, TWO])
def test_chunks_with_the_state_of_the_one_before_are_one_pass(frames):
  net = network(frames=frames, depth=2)
  params, x, state, found = started(net), tokens(2, 24), None, []
  for first, last in ((0, 12), (12, 24)):
    logits, state = net.apply(params, x[:, first:last], LABEL, state, method="chunk")
    found.append(logits)
  full = net.apply(params, x, LABEL)
  np.testing.assert_allclose(jnp.concatenate(found, 1), full, atol=1e-5)
  alone = net.apply(params, x[:, 12:], LABEL, method="chunk")[0]
  assert np.abs(alone - full[:, 12:]).max() > 1e-2  # without it, another answer


def test_what_a_prior_draws_with_guidance_is_what_the_full_pass_finds_likeliest():
  net = network()
  prior = AutoregressivePrior(backbone=net, temperature=0.0, guidance=2.0)
  params = started(net)
  draw = jax.jit(
    lambda p: prior.apply({"params": {"backbone": p["params"]}}, LABEL, shape=(24,), method="sample", rngs=streams(KEY))
  )
  codes = draw(params).codes
  u, c = (net.apply(params, codes, cond) for cond in (None, LABEL))
  logits = u + 2 * (c - u)
  top = jnp.sort(logits, -1)
  assert (top[..., -1] - top[..., -2]).min() > 1e-4 and np.abs(u - c).max() > 1e-2
  assert np.array_equal(codes, jnp.argmax(logits, -1))


def kernel(p, name: str = "kernel", scale: str = "scale") -> np.ndarray:
  v = p[name].reshape(-1, p[name].shape[-1])
  return v * (p[scale] / np.linalg.norm(v, axis=0))


def linear(p, x: np.ndarray) -> np.ndarray:
  return x @ kernel(p) + p["bias"]


def test_layers_by_hand():
  """The equations of the paper's section 2 in numpy, with the slices of the published code: tokens behind a frame of
  silence; the slow tier reads all but the last frame, the fast one from F tokens before the first on."""
  net = network(length=12, classes=0)
  params, x = started(net), np.asarray(tokens(1, 12)[0])
  p = jax.tree.map(lambda a: np.asarray(a, np.float64), params["params"])
  line = np.concatenate([np.full(6, 3), x])
  above = None
  for i, (frame, ratio, frames) in enumerate(((6, 3, line[:-6]), (2, 2, line[4:-2]))):
    tier = p[f"tiers_{i}"]
    h, made = tier["first"][0], []
    for number, values in enumerate((frames.reshape(-1, frame) / 3.5 - 1) * 2):
      given = values if above is None else linear(tier["expand"], values) + above[number]
      rnn = tier["rnns_0"]
      given = linear(rnn["input"], given)
      gates = 1 / (1 + np.exp(-(h @ kernel(rnn, "gates", "gates_scale") + given[:10])))
      candidate = np.tanh((gates[5:] * h) @ kernel(rnn, "candidate", "candidate_scale") + given[10:])
      h = gates[:5] * candidate + (1 - gates[:5]) * h
      made.append(linear(tier["out"], h).reshape(ratio, 5))
    above = np.concatenate(made)
  last = p["samples"]
  seen = np.stack([line[4 + i : 6 + i] for i in range(12)])
  h = last["Embed_0"]["embedding"][seen].reshape(12, -1) @ kernel(last, "seen", "seen_scale") + above
  for name in ("hidden_0", "hidden_1"):
    h = np.maximum(linear(last[name], h), 0)
  np.testing.assert_allclose(net.apply(params, x[None], None)[0], linear(last["head"], h), atol=1e-5)


@pytest.mark.parametrize(("frames", "depth"), [((8, 2), 1), ((16,), 3)])
def test_sizes_of_the_published_settings(frames, depth):
  """BEST_3TIER and BEST_2TIER of soroushmehr/sampleRNN_ICLR2017's README, counted layer by layer."""
  d = 1024
  dense = lambda c, f, bias=True: c * f + f + bias * f  # v, its scale, bias
  gru = lambda c: dense(c, 3 * d) + dense(d, 2 * d, False) + dense(d, d, False)
  total = 0
  for i, (frame, below) in enumerate(zip(frames, (*frames[1:], 1), strict=True)):
    total += (dense(frame, d) if i else 0) + gru(d if i else frame) + (depth - 1) * gru(d)
    total += dense(d, frame // below * d) + depth * d
  total += 256 * 256 + dense(frames[-1] * 256, d, False) + 2 * dense(d, d) + dense(d, 256)
  net = SampleRNN(256, 512, frames=frames, depth=depth)
  params = jax.eval_shape(net.init, KEY, jnp.zeros((1, 512), jnp.int32), None)
  assert sum(a.size for a in jax.tree.leaves(params)) == total


def test_a_kernel_has_the_length_of_its_scale_whatever_its_numbers():
  layer, x = WeightNormDense(4, nn.initializers.normal(1.0)), normal(2, 8, 5)
  params = layer.init(KEY, x)["params"]
  np.testing.assert_allclose(params["scale"], np.linalg.norm(params["kernel"], axis=0), rtol=1e-6)
  np.testing.assert_allclose(layer.apply({"params": params}, x), x @ params["kernel"], atol=1e-5)
  one, other = (layer.apply({"params": {**params, "kernel": c * params["kernel"]}}, x) for c in (1, 5))
  np.testing.assert_allclose(one, other, atol=1e-5)


def test_lengths_that_do_not_divide_are_one_line():
  for frames, length in (((6, 4), 24), ((5, 1), 24), ((), 24)):
    with pytest.raises(UserError, match=r"^SampleRNN's frames are \(.*\): each must divide the one before it"):
      jax.eval_shape(network(frames=frames, length=length).init, KEY, tokens(2, length), None)
  with pytest.raises(UserError, match=r"^this SampleRNN models \[B,24\] tokens, got \(2, 6\)"):
    jax.eval_shape(network().init, KEY, tokens(2, 6), None)
  with pytest.raises(UserError, match="chunks are of whole frames of 6 tokens, not of 8"):
    jax.eval_shape(lambda: network().init(KEY, tokens(2, 8), None, method="chunk"))
