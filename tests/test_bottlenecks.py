"""Every bottleneck keeps the contract; each one's numbers are those of its equations."""

import dataclasses
import itertools
import json

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from latents.bottlenecks import EMAVQ, FSQ, KL, LayerNormLatent, NestedDropout, NoBottleneck, ResidualFSQ
from latents.bottlenecks.base import code_logs, straight_through
from latents.bottlenecks.fsq import digits_to_index, index_to_digits
from latents.bottlenecks.nearest import nearest_code
from latents.bottlenecks.vq_ema import kmeans_state
from latents.errors import UserError
from tests.members.bottlenecks import BOTTLENECKS

KEY = jax.random.key(0)
RNGS = {"bottleneck": jax.random.key(7)}


def fields_are_json(module) -> bool:
  """Whether all fields are None, numbers, strings, tuples of such, modules or dataclasses: a declaration."""

  def plain(value):
    if isinstance(value, nn.Module) or dataclasses.is_dataclass(value):
      names = [f.name for f in dataclasses.fields(value) if f.name not in ("parent", "name")]
      return {name: plain(getattr(value, name)) for name in names}
    assert value is None or isinstance(value, bool | int | float | str | tuple), value
    return [plain(v) for v in value] if isinstance(value, tuple) else value

  return json.loads(json.dumps(plain(module))) == plain(module)


def start(module, h):
  return jax.jit(lambda: module.init({"params": KEY, "bottleneck": KEY}, h, train=True))()


def jitted(module):
  return jax.jit(module.apply, static_argnames=("train", "method", "mutable"))


def rng_normal(*shape, seed=1):
  return jax.random.normal(jax.random.key(seed), shape)


@pytest.mark.parametrize(("name", "make", "shape"), BOTTLENECKS, ids=[m[0] for m in BOTTLENECKS])
def test_contract(name, make, shape):
  module, h = make(), 2.0 * rng_normal(3, *shape)
  variables = start(module, h)
  mutable = [c for c in variables if c != "params"]

  @jax.jit
  def all_of(h):
    """The mode, the cache's round trip, and the gradient of a training step with and without mutable state."""
    latent = module.apply(variables, h, train=False)  # needs no random numbers
    stored = module.apply(variables, h, method="store")
    recalled = module.apply(variables, stored, train=False, method="recall")
    weights = rng_normal(*latent.z.shape, seed=5)

    def objective(h, changes):
      out, _ = module.apply(variables, h, train=True, rngs=RNGS, mutable=changes)
      return (out.z * weights).sum()

    return latent, recalled, [jax.grad(objective)(h, changes) for changes in ([], mutable)]

  latent, recalled, gradients = all_of(h)
  assert latent.z.dtype == jnp.float32 and latent.z.shape[:-1] == h.shape[:-1] and latent.mask is None
  assert all(np.shape(v) == () and np.isfinite(v) for v in (*latent.terms.values(), *latent.logs.values()))
  half = jax.eval_shape(lambda: module.apply(variables, h.astype(jnp.bfloat16), train=False))
  assert half.z.dtype == jnp.float32
  # a latent cache gives what the signal gives
  np.testing.assert_allclose(recalled.z, latent.z, atol=1e-6)
  named = module.apply(variables, latent, method="variants")
  assert "" in named and all(v.z.shape == latent.z.shape for v in named.values())
  if module.vocab is None:
    assert latent.codes is None
    with pytest.raises(UserError, match="no codes"):
      module.apply(variables, jnp.zeros((1, 2), jnp.int32), method="embed")
  else:
    assert latent.codes.dtype == jnp.int32
    grids = module.layout(h.shape[1:-1])
    assert grids[-1] == h.shape[1:-1]
    if len(grids) == 1:
      assert latent.codes.shape[: h.ndim - 1] == h.shape[:-1] and latent.codes.ndim in (h.ndim - 1, h.ndim)
      below = module.vocab
    else:
      below = np.repeat(module.vocab, [np.prod(grid) for grid in grids])
      assert latent.codes.shape == (len(h), len(below))
    assert int(latent.codes.min()) >= 0 and (np.asarray(latent.codes) < below).all()
    np.testing.assert_array_equal(recalled.codes, latent.codes)
    np.testing.assert_allclose(module.apply(variables, latent.codes, method="embed"), latent.z, atol=1e-6)

  for gradient in gradients:  # it reaches h in training, whether or not state may change
    assert gradient.shape == h.shape and float(jnp.abs(gradient).max()) > 1e-4
  assert fields_are_json(module)


def test_straight_through_is_exact_and_its_jacobian_is_the_identity():
  h, q = 1e4 * rng_normal(5), rng_normal(5, seed=2)
  np.testing.assert_array_equal(straight_through(h, q), q)
  np.testing.assert_array_equal(jax.jacrev(straight_through)(h, q), np.eye(5))
  np.testing.assert_array_equal(jax.jacfwd(straight_through)(h, q), np.eye(5))
  np.testing.assert_array_equal(jax.jacrev(straight_through, argnums=1)(h, q), np.zeros((5, 5)))


# -- kl


def test_kl_is_the_closed_form_and_its_monte_carlo_estimate():
  module, h = KL(dim=2), 0.7 * rng_normal(1, 3, 4)
  variables = start(module, h)
  mean, std = np.split(np.asarray(module.apply(variables, h, method="store"), np.float64), 2, -1)
  latent = module.apply(variables, h, train=True, rngs=RNGS)
  closed = 0.5 * (mean**2 + std**2 - 1 - 2 * np.log(std))
  np.testing.assert_allclose(latent.terms["kl"], closed.mean(), rtol=1e-5)
  np.testing.assert_allclose(latent.logs["kl_sum"], closed.sum((1, 2)).mean(), rtol=1e-5)
  np.testing.assert_allclose(latent.logs["std_mean"], std.mean(), rtol=1e-6)
  # E_q[log q(z) - log p(z)] over samples that the module itself drew
  draw = jax.jit(jax.vmap(lambda k: module.apply(variables, h, train=True, rngs={"bottleneck": k}).z))
  z = np.asarray(draw(jax.random.split(KEY, 20000)), np.float64)
  ratio = -np.log(std) - 0.5 * ((z - mean) / std) ** 2 + 0.5 * z**2
  error = ratio.mean((1, 2, 3)).std() / np.sqrt(len(z))
  assert abs(ratio.mean() - closed.mean()) < 4 * error < 0.02
  np.testing.assert_allclose(z.mean(0), mean, atol=0.05)
  np.testing.assert_allclose(z.std(0), std, rtol=0.05)


def test_kl_weight_converts_to_the_sums_of_ldm():
  module, x, x_hat = KL(dim=4), rng_normal(2, 16, 16, 3), rng_normal(2, 16, 16, 3, seed=2)
  h = rng_normal(2, 2, 2, 8, seed=3)
  latent = jitted(module)(start(module, h), h, train=False)
  n_x, n_z, w = 16 * 16 * 3, 2 * 2 * 4, 1e-2
  ldm = jnp.abs(x - x_hat).sum() / 2 + w * latent.logs["kl_sum"]  # sums over elements / B
  means = jnp.abs(x - x_hat).mean() + w / (n_x / n_z) * latent.terms["kl"]
  np.testing.assert_allclose(ldm, n_x * means, rtol=1e-5)


def test_kl_clips_the_log_variance_and_samples_only_in_training():
  module = KL(dim=1)
  variables = {"params": {"project": {"kernel": jnp.eye(2), "bias": jnp.zeros(2)}}}
  h = jnp.array([[[0.5, 1e3], [0.5, -1e3]]])
  np.testing.assert_allclose(
    module.apply(variables, h, method="store"), [[[0.5, np.exp(10)], [0.5, np.exp(-15)]]], rtol=1e-5
  )
  np.testing.assert_array_equal(module.apply(variables, h, train=False).z, [[[0.5], [0.5]]])
  stored = module.apply(variables, h, method="store")
  sample = module.apply(variables, h, train=True, rngs=RNGS).z
  assert abs(float(sample[0, 0, 0])) > 100
  np.testing.assert_allclose(module.apply(variables, stored, train=True, rngs=RNGS, method="recall").z, sample)


@pytest.mark.parametrize("spread", [1.0, 0.1])
def test_kl_starts_with_the_spread_that_is_asked_for(spread):
  module, h = KL(dim=3, spread=spread), jnp.zeros((1, 2, 6))
  mean, std = jnp.split(module.apply(module.init({**RNGS, "params": KEY}, h, train=True), h, method="store"), 2, -1)
  np.testing.assert_array_equal(mean, np.zeros((1, 2, 3)))
  np.testing.assert_allclose(std, np.full((1, 2, 3), spread), rtol=1e-6)


# -- norm, none


def test_layer_norm_standardises_each_sample_whole():
  h = 5.0 + 3.0 * rng_normal(4, 8, 8, 3)
  z = np.asarray(LayerNormLatent().apply({}, h, train=True).z, np.float64)
  np.testing.assert_allclose(z.mean((1, 2, 3)), 0, atol=1e-5)
  np.testing.assert_allclose(z.var((1, 2, 3)), 1, atol=1e-5)


def test_no_bottleneck_is_the_identity():
  h = rng_normal(2, 4, 3)
  assert not jax.tree.leaves(start(NoBottleneck(), h))
  np.testing.assert_array_equal(NoBottleneck().apply({}, h, train=True).z, h)


# -- fsq


@pytest.mark.parametrize("levels", [(3,), (5, 4, 3), (8, 6, 5), (7, 5, 5, 5, 5)])
def test_fsq_reaches_every_code_and_index_is_a_bijection(levels):
  module = FSQ(levels, project=False)
  every = jnp.arange(module.vocab)
  digits = index_to_digits(every, levels)
  assert len(set(map(tuple, np.asarray(digits)))) == module.vocab == np.prod(levels)
  np.testing.assert_array_equal(digits_to_index(digits, levels), every)
  # the codes are the grid of the paper, first channel fastest
  axes = [(np.arange(n) - n // 2) / (n // 2) for n in levels]
  expected = np.array([p[::-1] for p in itertools.product(*axes[::-1])])
  np.testing.assert_allclose(module.apply({}, every[None], method="embed")[0], expected, atol=1e-7)
  # h at the inverse of the bound gives each code back
  count = np.array(levels)
  half, offset = (count - 1) * (1 - 1e-3) / 2, np.where(count % 2, 0.0, 0.5)
  inside = np.clip((np.asarray(digits) - count // 2 + offset) / half, -0.9999, 0.9999)
  h = np.arctanh(inside) - np.arctanh(offset / half)
  latent = module.apply({}, jnp.asarray(h, jnp.float32)[None], train=True)
  np.testing.assert_array_equal(latent.codes[0], every)
  np.testing.assert_allclose(latent.logs["usage"], 1.0)
  np.testing.assert_allclose(latent.logs["perplexity"], module.vocab, rtol=1e-4)


def test_fsq_values_and_gradient_by_hand():
  levels = (5, 4)
  h = jnp.array([[0.6, -0.2]])
  latent = FSQ(levels, project=False).apply({}, h, train=False)
  # 5 levels: tanh(.6) 1.998 = 1.073 -> 1 -> 1/2.  4 levels: o/h = .5/1.4985, 1.4985 tanh(-.2 + .3469) - .5 = -.282 -> 0
  np.testing.assert_allclose(latent.z, [[0.5, 0.0]], atol=1e-7)
  np.testing.assert_array_equal(latent.codes, [(1 + 2) + 5 * (0 + 2)])
  gradient = jax.grad(lambda h: FSQ(levels, project=False).apply({}, h, train=True).z.sum())(h)
  half, shift = np.array([1.998, 1.4985]), np.array([0.0, np.arctanh(0.5 / 1.4985)])
  np.testing.assert_allclose(gradient, half / 2 / np.cosh(np.asarray(h) + shift) ** 2, rtol=1e-5)


def test_fsq_errors_are_one_line():
  h = rng_normal(1, 2, 3)
  for module in (FSQ((2, 5, 5)), FSQ((5, 5), project=False), FSQ((5,) * 20), ResidualFSQ((5, 5), project=False)):
    with pytest.raises(UserError) as error:
      module.init(KEY, h, train=False)
    assert "\n" not in str(error.value)


# -- residual fsq


@pytest.mark.parametrize("levels", [(5, 5, 5), (2, 3, 8)])
def test_residual_fsq_is_the_expansion_in_base_levels(levels):
  stages, h = 4, rng_normal(500, 3)
  module, count = ResidualFSQ(levels, stages, project=False), np.array(levels)
  run = jax.jit(lambda h: module.apply({}, h, train=False))
  latent = run(h)
  assert latent.codes.shape == (500, stages)
  reach = count / (count - 1)
  x = reach * np.tanh(np.asarray(h) / reach)
  for n in range(1, stages + 1):  # a prefix of the codes is a coarser z
    z = module.apply({}, latent.codes[:, :n], method="embed")
    cell = 1.0 / (count - 1) * count ** (1.0 - n)
    assert (np.abs(z - x) <= cell * (1 + 1e-4) + 1e-6).all()
    np.testing.assert_allclose((np.asarray(z) + reach) / cell / 2 % 1, 0.5, atol=2e-3)  # centres of a uniform grid
  np.testing.assert_array_equal(z, latent.z)
  total = 0  # the digits of all stages, most significant first, count the cells of that grid
  for n in range(stages):
    total = total * count + np.asarray(index_to_digits(latent.codes[:, n], levels))
  np.testing.assert_allclose((total + 0.5) * 2 * cell - reach, latent.z, atol=1e-5)
  gradient = jax.grad(lambda h: run(h).z.sum())(h)
  np.testing.assert_allclose(gradient, 1 - (x / reach) ** 2, atol=1e-5)


def test_residual_fsq_reaches_every_combination_of_codes():
  levels, stages = (3, 2), 2
  h = np.stack(np.meshgrid(np.linspace(-4, 4, 400), np.linspace(-4, 4, 400)), -1)
  codes = ResidualFSQ(levels, stages, project=False).apply({}, jnp.asarray(h, jnp.float32), train=False).codes
  assert len(set(map(tuple, np.asarray(codes).reshape(-1, stages)))) == 6**stages


# -- ema vq


def vq_state(embedding, counts=None, sums=None):
  counts = np.ones(len(embedding)) if counts is None else counts
  sums = embedding if sums is None else sums
  state = {"embedding": embedding, "counts": counts, "sums": sums}
  return {"codebook": {k: jnp.asarray(v, jnp.float32) for k, v in state.items()}}


def test_ema_update_by_hand():
  module = EMAVQ(vocab=3, dim=2, decay=0.9, project=False)
  e = np.array([[0.0, 0.0], [1.0, 1.0], [9.0, 9.0]])
  h = jnp.array([[[0.1, 0.0], [0.0, 0.3], [1.5, 1.0]]])
  latent, state = module.apply(vq_state(e), h, train=True, mutable=["codebook"])
  np.testing.assert_array_equal(latent.codes, [[0, 0, 1]])
  np.testing.assert_allclose(latent.z, [[e[0], e[0], e[1]]])  # the codebook of before the update
  np.testing.assert_allclose(latent.terms["commit"], (0.1**2 + 0.3**2 + 0.5**2) / 6, rtol=1e-5)
  counts = np.array([0.9 + 0.2, 0.9 + 0.1, 0.9])
  sums = 0.9 * e + 0.1 * np.array([[0.1, 0.3], [1.5, 1.0], [0, 0]])
  smooth = (counts + 1e-5) / (counts.sum() + 3e-5) * counts.sum()
  np.testing.assert_allclose(state["codebook"]["counts"], counts, rtol=1e-6)
  np.testing.assert_allclose(state["codebook"]["sums"], sums, rtol=1e-6)
  np.testing.assert_allclose(state["codebook"]["embedding"], sums / smooth[:, None], rtol=1e-6)
  np.testing.assert_allclose(state["codebook"]["embedding"][2], e[2], rtol=1e-4)  # unused: keeps its value
  np.testing.assert_allclose(latent.logs["usage"], 2 / 3, rtol=1e-6)
  entropy = -(2 / 3 * np.log(2 / 3) + 1 / 3 * np.log(1 / 3))
  np.testing.assert_allclose(latent.logs["perplexity"], np.exp(entropy), rtol=1e-5)


def test_ema_state_changes_only_in_training_and_not_at_init():
  module, h = EMAVQ(vocab=4, dim=2, project=False), rng_normal(2, 8, 2)
  variables = start(module, h)
  book = variables["codebook"]
  np.testing.assert_array_equal(book["counts"], np.ones(4))
  np.testing.assert_array_equal(book["sums"], book["embedding"])
  apply = jitted(module)
  _, same = apply(variables, h, train=False, mutable="codebook")
  for old, new in zip(jax.tree.leaves(variables), jax.tree.leaves(same), strict=True):
    np.testing.assert_array_equal(old, new)
  _, moved = apply(variables, h, train=True, mutable="codebook")
  np.testing.assert_allclose(moved["codebook"]["counts"].sum(), 0.99 * 4 + 0.01 * 16, rtol=1e-5)
  assert float(jnp.abs(moved["codebook"]["embedding"] - book["embedding"]).max()) > 0
  assert "params" not in variables  # nothing here for the optimiser


def test_ema_with_decay_0_is_one_lloyd_step_and_gradients_are_the_papers():
  module = EMAVQ(vocab=4, dim=2, decay=0.0, project=False, eps=0.0)
  h = rng_normal(1, 32, 2)
  e = np.asarray(h[0, :4])
  latent, state = module.apply(vq_state(e), h, train=True, mutable=["codebook"])
  means = [np.asarray(h[0])[np.asarray(latent.codes[0]) == k].mean(0) for k in range(4)]
  np.testing.assert_allclose(state["codebook"]["embedding"], means, rtol=1e-5)
  variables = vq_state(e)
  commit = jax.grad(lambda h: module.apply(variables, h, train=True).terms["commit"])(h)
  np.testing.assert_allclose(commit, 2 * (h - latent.z) / h.size, atol=1e-7)
  through = jax.jacrev(lambda h: module.apply(variables, h, train=True).z)(h).reshape(64, 64)
  np.testing.assert_array_equal(through, np.eye(64))
  book = jax.grad(lambda v: module.apply(v, h, train=True).terms["commit"] + module.apply(v, h, train=True).z.sum())
  assert not any(np.any(leaf) for leaf in jax.tree.leaves(book(variables)))


def test_nearest_code_is_exact_where_distances_nearly_cancel():
  e = 1000.0 + jnp.arange(8.0)[:, None] * jnp.ones((8, 4))
  np.testing.assert_array_equal(nearest_code(e + 0.25, e), np.arange(8))


def test_restart_sets_all_three_states_and_finds_planted_clusters():
  centres = 10 * rng_normal(16, 4, seed=3)
  h = (centres[None] + 0.05 * rng_normal(8, 16, 4)).reshape(1, 128, 4)
  found = {}
  for restart in (0.0, 0.2):
    module = EMAVQ(vocab=32, dim=4, decay=0.8, restart=restart, project=False)
    variables = start(module, h)
    apply = jitted(module)
    for i in range(40):
      latent, variables = apply(variables, h, train=True, mutable="codebook", rngs={"bottleneck": jax.random.key(i)})
    book = variables["codebook"]
    assert np.isfinite(book["embedding"]).all()
    found[restart] = len(set(np.asarray(latent.codes).ravel().tolist()))
    if restart:
      threshold = restart * 128 / 32
      fresh = np.asarray(book["counts"]) == np.float32(threshold)
      np.testing.assert_allclose(book["sums"][fresh], book["embedding"][fresh] * threshold, rtol=1e-6)
      assert float(latent.terms["commit"]) < 0.01
  assert found[0.2] >= 16 > found[0.0], found


def test_kmeans_start_happens_once_on_the_first_batch_and_keeps_the_sums():
  centres = 10 * rng_normal(4, 3, seed=3)
  h = (centres[None] + 0.01 * rng_normal(16, 4, 3)).reshape(1, 64, 3)
  module = EMAVQ(vocab=8, dim=3, kmeans=5, project=False)
  variables = start(module, h)
  assert not bool(variables["codebook"]["started"])
  apply = jitted(module)
  latent, first = apply(variables, h, train=True, mutable="codebook", rngs=RNGS)
  assert bool(first["codebook"]["started"])
  assert float(latent.terms["commit"]) < 1e-3 * float(jnp.square(h).mean())
  _, second = apply(first, h, train=True, mutable="codebook", rngs={"bottleneck": KEY})
  np.testing.assert_allclose(second["codebook"]["embedding"], first["codebook"]["embedding"], atol=0.02)
  # fewer rows than codes: some clusters are empty
  few, counts, sums = jax.jit(lambda rows: kmeans_state(KEY, rows, 8, 3))(h[0, :4])
  assert np.isfinite(few).all() and float(counts.min()) == 1.0
  np.testing.assert_allclose(sums, few * counts[:, None])


def test_code_logs_are_means_over_groups():
  codes = jnp.stack([jnp.arange(8) % 4, jnp.zeros(8, jnp.int32)], -1)
  logs = code_logs(codes, 4, groups=2)
  np.testing.assert_allclose(logs["usage"], (1 + 0.25) / 2)
  np.testing.assert_allclose(logs["perplexity"], (4 + 1) / 2, rtol=1e-6)


def test_batch_statistics_are_those_of_the_global_batch():
  """Eight shards of one batch give the state of the whole batch."""
  module, h = EMAVQ(vocab=4, dim=2, project=False), rng_normal(8, 4, 2)
  variables = start(module, h)
  apply = jitted(module)
  whole = apply(variables, h, train=True, mutable="codebook")[1]["codebook"]["counts"]
  parts = [apply(variables, part, train=True, mutable="codebook")[1]["codebook"]["counts"] for part in h]
  np.testing.assert_allclose(whole, 0.99 + sum(p - 0.99 for p in parts), rtol=1e-5)


# -- nested dropout


def test_nested_dropout_keeps_prefixes_uniformly_in_training_only():
  module, h = NestedDropout(KL(dim=2), minimum=3), rng_normal(4000, 6, 2)
  variables = start(module, h[:2])
  latent = jitted(module)(variables, h, train=True, rngs=RNGS)
  keep = np.asarray(latent.mask.sum(-1))
  assert latent.mask.shape == (4000, 6) and latent.mask.dtype == bool
  np.testing.assert_array_equal(latent.mask, np.arange(6) < keep[:, None])
  counts = np.bincount(keep, minlength=7)
  assert not counts[:3].any() and (np.abs(counts[3:] - 1000) < 150).all(), counts
  assert "kl" in latent.terms and "kl_sum" in latent.logs
  assert module.apply(variables, h[:2], train=False).mask is None
  named = module.apply(variables, module.apply(variables, h[:2], train=False), method="variants")
  assert {k: None if v.mask is None else int(v.mask.sum()) for k, v in named.items()} == {"": None, "3 tokens": 6}


def test_nested_dropout_on_a_grid_is_raster_order():
  module, h = NestedDropout(NoBottleneck()), rng_normal(50, 2, 3, 1)
  latent = jitted(module)({}, h, train=True, rngs=RNGS)
  assert latent.mask.shape == (50, 2, 3)
  flat = np.asarray(latent.mask).reshape(50, 6)
  np.testing.assert_array_equal(flat, np.sort(flat, -1)[:, ::-1])
  with pytest.raises(UserError, match="at least 9"):
    NestedDropout(NoBottleneck(), minimum=9).apply({}, h, train=True, rngs=RNGS)
