"""Quantisers without a codebook that is looked up: LFQ, BSQ, symmetric FSQ, the relaxed categorical."""

import itertools
import math

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from latents.bottlenecks import BSQ, FSQ, LFQ, Gumbel
from latents.bottlenecks.base import code_logs
from latents.bottlenecks.fsq import nearest_digits
from latents.bottlenecks.lfq import entropies
from latents.errors import UserError
from latents.nn.ramp import risen

KEY = jax.random.key(0)
RNGS = {"params": KEY, "bottleneck": KEY}


def normal(*shape, seed=1):
  return jax.random.normal(jax.random.key(seed), shape)


# -- bits


@pytest.mark.parametrize("make", [LFQ, BSQ])
@pytest.mark.parametrize(("bits", "groups"), [(4, 1), (18, 1), (12, 3), (30, 1), (36, 2), (60, 2)])
def test_bits_and_indices_are_a_bijection(make, bits, groups):
  module = make(bits=bits, groups=groups, joint=2, project=False)
  share = bits // groups
  assert module.vocab == 2**share
  rng = np.random.default_rng(0)
  codes = np.arange(2**share) if share <= 18 else np.append(rng.integers(0, 2**share, 100_000), 2**share - 1)
  codes = codes.astype(np.int32)
  if groups > 1:
    codes = np.stack([codes, *(rng.permutation(codes) for _ in range(groups - 1))], -1)
  z = np.asarray(module.apply({}, codes[None], method="embed"))[0]
  np.testing.assert_allclose(np.abs(z), 1.0 if make is LFQ else bits**-0.5, rtol=1e-6)
  value = ((z > 0).reshape(len(z), groups, share) * 2 ** np.arange(share, dtype=np.int64)).sum(-1)
  np.testing.assert_array_equal(value, codes.reshape(len(z), groups))  # the first channel is the least significant
  digits = np.asarray(z, np.float32)[None] * 3.0
  back = jax.jit(lambda u: module.apply({}, u, method="indices"))(digits)
  np.testing.assert_array_equal(back[0], codes)


def enumerated(logits):
  """Entropies by the softmax over all 2^L codes, float64: mean of each token's, and of the mean."""
  signs = np.array(list(itertools.product([-1.0, 1.0], repeat=logits.shape[-1])))
  scores = logits @ signs.T / 2
  p = np.exp(scores - scores.max(-1, keepdims=True))
  p = (p / p.sum(-1, keepdims=True)).reshape(-1, len(signs))
  entropy = lambda p: -(p * np.log(np.where(p > 0, p, 1.0))).sum(-1)
  return entropy(p).mean(), entropy(p.mean(0))


@pytest.mark.parametrize("bits", [1, 2, 5, 8])
@pytest.mark.parametrize("spread", [0.1, 1.0, 30.0])
def test_entropies_are_those_of_the_enumeration(bits, spread):
  logits = spread * normal(2, 9, bits)
  token, batch = entropies(logits, bits)
  of_token, of_batch = enumerated(np.asarray(logits, np.float64))
  np.testing.assert_allclose(token, of_token, rtol=1e-4, atol=1e-5)
  np.testing.assert_allclose(batch, of_batch, rtol=1e-4, atol=1e-5)
  apart = entropies(logits, 1)[1]  # bits as if independent say no less than all of them together
  singles = sum(enumerated(np.asarray(logits[..., i : i + 1], np.float64))[1] for i in range(bits))
  np.testing.assert_allclose(apart, singles, rtol=1e-4, atol=1e-5)
  assert float(apart) >= float(batch) - 1e-5
  for gradient in jax.jacrev(lambda x: jnp.stack(entropies(x, bits)))(100 * logits):
    assert np.isfinite(gradient).all()


def test_18_bits_need_no_table_a_token():
  tokens = jax.ShapeDtypeStruct((4096, 18), jnp.float32)
  memory = jax.jit(lambda u: entropies(u, 18)[1]).lower(tokens).compile().memory_analysis()
  assert memory.temp_size_in_bytes < 4096 * 2**18 * 4 / 50


def test_lfq_terms_by_hand():
  module, h = LFQ(bits=3, temperature=2.0, diversity=0.7, project=False), normal(2, 5, 3)
  latent = module.apply({}, h, train=True)
  u = np.asarray(h, np.float64)
  np.testing.assert_array_equal(latent.z, np.where(u > 0, 1, -1))
  token, batch = enumerated(4 * u / 2.0)
  np.testing.assert_allclose(latent.terms["entropy"], token - 0.7 * batch, rtol=1e-4)
  np.testing.assert_allclose(latent.terms["commit"], np.square(u - np.sign(u)).mean(), rtol=1e-5)
  jacobian = jax.jacrev(lambda h: module.apply({}, h, train=True).z)(h).reshape(30, 30)
  np.testing.assert_array_equal(jacobian, np.eye(30))
  # bits that are sure and used alike: -L ln 2 in all
  corners = 10.0 * jnp.array(list(itertools.product([-1.0, 1.0], repeat=3)))[None]
  even = LFQ(bits=3, project=False).apply({}, corners, train=True)
  np.testing.assert_allclose(even.terms["entropy"], -3 * math.log(2), rtol=1e-5)
  np.testing.assert_allclose(even.logs["usage"], 1.0)
  # groups: the sum of the entropies of each, and no joint one
  two = LFQ(bits=6, groups=2, temperature=2.0, project=False)
  wide = jnp.concatenate([h, normal(2, 5, 3, seed=4)], -1)
  parts = [LFQ(bits=3, temperature=2.0, project=False).apply({}, w, train=True) for w in jnp.split(wide, 2, -1)]
  both = two.apply({}, wide, train=True)
  np.testing.assert_allclose(both.terms["entropy"], sum(p.terms["entropy"] for p in parts), rtol=1e-4)
  np.testing.assert_array_equal(both.codes, jnp.stack([p.codes for p in parts], -1))


@pytest.mark.parametrize("bits", [2, 6, 18])
def test_bsq_is_on_the_sphere_within_its_bound(bits):
  module, h = BSQ(bits=bits, project=False), 5.0 * normal(300, bits)
  latent = module.apply({}, h, train=True)
  u = np.asarray(module.apply({}, h, method="before"), np.float64)
  np.testing.assert_allclose(np.linalg.norm(u, axis=-1), 1.0, rtol=1e-5)
  np.testing.assert_allclose(np.linalg.norm(latent.z, axis=-1), 1.0, rtol=1e-5)
  error = np.linalg.norm(u - latent.z, axis=-1)
  assert error.max() <= math.sqrt(2 - 2 / math.sqrt(bits)) + 1e-6
  corner = jnp.zeros((1, bits)).at[0, 0].set(1.0)  # the farthest there is
  far = module.apply({}, corner, train=True).z - corner
  assert float(jnp.linalg.norm(far)) == pytest.approx(math.sqrt(2 - 2 / math.sqrt(bits)), rel=1e-5)
  pull = jax.grad(lambda h: (module.apply({}, h, train=True).z * normal(300, bits, seed=2)).sum())(h)
  np.testing.assert_allclose((pull * h).sum(-1), 0.0, atol=1e-4)  # tangential
  token = np.asarray(4 * u / 0.01 / math.sqrt(bits))
  np.testing.assert_allclose(latent.logs["batch_entropy"], entropies(jnp.float32(token), 1)[1], rtol=1e-5)


def test_usage_of_many_codes_is_counted_without_a_table():
  codes = jax.random.randint(KEY, (4, 64), 0, 2**6)
  gone = jnp.where(jnp.arange(64) % 3 == 0, -1, codes)  # stages that are left out are no codes
  left = np.delete(codes, slice(0, 64, 3), 1)
  for some, rest in ((codes, codes), (gone, left)):
    few, many = code_logs(some, 2**18), code_logs(jnp.where(some < 0, -1, some * 2**20), 2**30)
    for name, times in (("usage", 2**12), ("perplexity", 1)):
      np.testing.assert_allclose(few[name], many[name] * times, rtol=1e-5)
      np.testing.assert_allclose(few[name], code_logs(rest, 2**18)[name], rtol=1e-5)
  memory = jax.jit(lambda c: code_logs(c, 2**30)).lower(codes).compile().memory_analysis()
  assert memory.temp_size_in_bytes < 2**20


def test_borders():
  """A bit is whether u > 0, so that 0 is no; a level in the middle of two is the upper one."""
  zero = LFQ(bits=3, project=False).apply({}, jnp.array([[0.0, -0.0, 1.0]]), train=True)
  np.testing.assert_array_equal(zero.codes, [4])
  np.testing.assert_array_equal(zero.z, [[-1, -1, 1]])
  np.testing.assert_array_equal(nearest_digits(jnp.array([[-0.5, 0.5], [0.0, -1.0]]), (3, 3)), [[1, 2], [1, 0]])


# -- symmetric fsq


@pytest.mark.parametrize("levels", [(2,), (2, 3, 4, 5), (8, 2)])
def test_symmetric_fsq_is_even_and_reaches_every_code(levels):
  module = FSQ(levels, project=False, symmetric=True)
  axes = [np.linspace(-1, 1, n) for n in levels]
  every = np.array([p[::-1] for p in itertools.product(*axes[::-1])], np.float32)
  np.testing.assert_allclose(module.apply({}, jnp.arange(module.vocab)[None], method="embed")[0], every, atol=1e-6)
  latent = module.apply({}, jnp.arctanh(0.999 * every)[None], train=True)
  np.testing.assert_array_equal(latent.codes[0], np.arange(module.vocab))
  h = normal(200, len(levels))
  np.testing.assert_allclose(module.apply({}, -h, train=True).z, -module.apply({}, h, train=True).z, atol=1e-6)
  error = np.abs(module.apply({}, h, train=True).z - np.tanh(h))
  assert (error <= 1 / (np.array(levels) - 1) + 1e-6).all()
  gradient = jax.grad(lambda h: module.apply({}, h, train=True).z.sum())(h)
  np.testing.assert_allclose(gradient, 1 / np.cosh(np.asarray(h)) ** 2, atol=1e-6)


# -- gumbel


def test_gumbel_terms_and_schedules():
  module, logits = Gumbel(vocab=5, dim=3, cooling=4, project=False), normal(2, 6, 5)
  variables = module.init(RNGS, logits, train=True)
  p = np.asarray(jax.nn.softmax(logits), np.float64)
  kl = math.log(5) + (p * np.log(p)).sum(-1).mean()
  heats = []
  for _ in range(6):
    latent, state = module.apply(variables, logits, train=True, mutable=["codebook"], rngs=RNGS)
    variables = {**variables, **state}
    np.testing.assert_allclose(latent.terms["kl"], kl, rtol=1e-5)
    heats.append(float(latent.logs["temperature"]))
  half = 0.5 + 0.5 * math.cos(math.pi / 4)
  np.testing.assert_allclose(heats, 1 / 16 + 15 / 16 * np.array([1, half, 0.5, 1 - half, 0, 0]), rtol=1e-5)
  assert int(module.apply(variables, logits, train=False, mutable=["codebook"])[1]["codebook"]["passes"]) == 6
  assert float(risen(jnp.int32(0), 0)) == 1.0
  # a mode in evaluation: the row of the largest logit
  mode = module.apply(variables, logits, train=False)
  np.testing.assert_array_equal(mode.codes, logits.argmax(-1))
  np.testing.assert_array_equal(mode.z, variables["params"]["codebook"][mode.codes])


def test_gumbel_draws_by_the_softmax_and_cold_draws_are_rows():
  logits = jnp.array([0.0, 1.0, -1.0, 0.5])
  module = Gumbel(vocab=4, dim=4, hot=1e-3, cold=1e-3, project=False)
  variables = {"params": {"codebook": jnp.eye(4)}, "codebook": {"passes": jnp.int32(0)}}
  h = jnp.broadcast_to(logits, (20_000, 4))
  latent = module.apply(variables, h, train=True, rngs=RNGS)
  share = np.bincount(np.asarray(latent.codes), minlength=4) / len(h)
  p = np.asarray(jax.nn.softmax(logits))
  chi = len(h) * ((share - p) ** 2 / p).sum()
  assert chi < 16.3, chi  # 3 degrees of freedom: exceeded once in a thousand
  assert float(jnp.abs(latent.z.sum(-1) - 1).max()) < 1e-4
  assert float((latent.z.max(-1) > 0.99).mean()) > 0.98
  hard = module.clone(hard=True, hot=0.7, cold=0.7)
  soft = module.clone(hot=0.7, cold=0.7)
  one = hard.apply(variables, h[:50], train=True, rngs=RNGS)
  np.testing.assert_array_equal(one.z, jax.nn.one_hot(one.codes, 4))
  pull = normal(50, 4, seed=3)
  grads = [
    jax.grad(lambda h, m=m: (m.apply(variables, h, train=True, rngs=RNGS).z * pull).sum())(h[:50]) for m in (hard, soft)
  ]
  np.testing.assert_allclose(*grads, atol=1e-6)


# -- bad input


@pytest.mark.parametrize(
  ("module", "words"),
  [
    (LFQ(bits=7, groups=2), "7 bits are not to be had in 2 equal groups"),
    (LFQ(bits=31, joint=1), "31 bits are more than an int32 index holds"),
    (LFQ(bits=20), "joint entropy of 20 of 20 bits"),
    (BSQ(bits=8, joint=3), "joint entropy of 3 of 8 bits"),
    (LFQ(bits=8, project=False), "got 3 channels"),
    (FSQ(levels=(1, 5), symmetric=True), "at least 2 levels"),
    (FSQ(levels=(2, 5)), "at least 3 levels"),
    (FSQ(levels=(2,) * 31, symmetric=True), "more than an int32 index holds"),
    (Gumbel(vocab=4, cold=0.0), "above 0"),
    (Gumbel(vocab=4, project=False), "got 3 channels"),
  ],
)
def test_bad_input_is_one_line(module, words):
  with pytest.raises(UserError, match=words) as error:
    module.init(RNGS, normal(1, 2, 3), train=True)
  assert "\n" not in str(error.value)


@pytest.mark.parametrize("module", [LFQ(bits=3), BSQ(bits=3), FSQ(levels=(4, 3)), Gumbel(vocab=8, dim=2)])
def test_codes_out_of_range_are_refused(module):
  variables = module.init(RNGS, normal(1, 2, 3), train=True)
  for code in (-1, module.vocab):
    with pytest.raises(UserError, match=f"codes are 0 to {module.vocab - 1}, got {code}"):
      module.apply(variables, jnp.array([[0, code]]), method="embed")
