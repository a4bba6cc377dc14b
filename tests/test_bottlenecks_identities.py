"""Identities of all quantisers, over the room's members: derivatives, bijections, what a gradient touches."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from latents.bottlenecks import BSQ, EMAVQ, FSQ, LFQ, VQ, ResidualFSQ, ResidualVQ, VQReg
from latents.bottlenecks.nearest import NearestCode
from tests.members.bottlenecks import BOTTLENECKS
from tests.test_bottlenecks_nearest import rotation

KEY = jax.random.key(0)
RNGS = {"params": KEY, "bottleneck": KEY}
MORE = [
  ("residual learned shared", lambda: ResidualVQ(VQ(vocab=16, dim=3), quantizers=3, shared=True), (8, 6)),
  ("residual unit codes", lambda: ResidualVQ(VQ(vocab=16, dim=3, normalise="codes", project=False), 2), (8, 3)),
  (
    "residual factorised rotation",
    lambda: ResidualVQ(VQ(vocab=16, dim=3, normalise="search", gradient="rotation"), 2, width=6),
    (8, 6),
  ),
]


def members(*kinds):
  """pytest parameters: (the module with nothing left out, its trailing shape) of the members of these kinds."""
  found = [(name, make(), shape) for name, make, shape in [*BOTTLENECKS, *MORE]]
  found = [(n, m.inner if isinstance(m, VQReg) else m, s) for n, m, s in found]
  return [pytest.param(m.clone(dropout=0.0) if isinstance(m, ResidualVQ) else m, s, id=n) for n, m, s in found
          if isinstance(m, kinds)]  # fmt: skip


def begin(module, shape, batch=2):
  h = 2.0 * jax.random.normal(jax.random.key(3), (batch, 3, shape[-1]))
  return jax.jit(lambda: module.init(RNGS, h, train=True))(), h


def chosen(gradient, x, q):
  """The Jacobian [D,D] of z to x by its name, float64."""
  x, q = np.asarray(x, np.float64), np.asarray(q, np.float64)
  return np.eye(len(x)) if gradient == "straight" else np.linalg.norm(q) / np.linalg.norm(x) * rotation(x, q)


# -- derivatives


@pytest.mark.parametrize(("module", "shape"), members(NearestCode, ResidualVQ))
def test_jacobian_is_that_of_the_gradient_that_was_chosen(module, shape):
  variables, h = begin(module, shape)
  residual = isinstance(module, ResidualVQ)
  bound = module.bind(variables)
  gradient = module.stage.gradient if residual else module.gradient
  run = lambda v: module.apply(variables, v[None, None], train=True)
  enter = bound._start if residual else bound.before
  before = jax.vmap(lambda v: enter(v[None, None])[0, 0])
  slope = lambda f: jax.jit(jax.vmap(jax.jacrev(lambda v: f(v[None])[0])))
  v = h.reshape(-1, shape[-1])
  latent = jax.jit(jax.vmap(run))(v)
  found = jax.jit(jax.vmap(jax.jacrev(lambda v: run(v).z[0, 0])))(v)
  if residual and module.width is not None:
    wanted, left = 0.0, np.asarray(v, np.float64)
    for i in range(module.quantizers):
      stage, lift = (variables["params"][f"{name}_{i}"] for name in ("stages", "lifts"))
      down, up = np.asarray(stage["projection"]["kernel"]), np.asarray(lift["kernel"])
      near = left @ down + np.asarray(stage["projection"]["bias"])
      q = np.asarray(stage["codebook"])[np.asarray(latent.codes)[:, 0, 0, i]]
      wanted = wanted + np.stack([up.T @ chosen(gradient, a, b) @ down.T for a, b in zip(near, q, strict=True)])
      left = left - (q @ up + np.asarray(lift["bias"]))
  else:
    x, down = before(v), slope(before)(v)
    wanted = np.stack([chosen(gradient, *pair) for pair in zip(x, latent.z[:, 0, 0], strict=True)]) @ np.asarray(down)
  np.testing.assert_allclose(found, wanted, atol=2e-4 * max(1.0, np.abs(wanted).max()))


@pytest.mark.parametrize(("module", "shape"), members(ResidualVQ))
def test_commitment_of_every_stage_reaches_h(module, shape):
  variables, h = begin(module, shape)
  pulls = [0.0]
  for n in range(1, module.quantizers + 1):
    first = module.clone(quantizers=n)
    loss = lambda h, first=first: sum(first.apply(variables, h, train=True).terms.values())
    pulls.append(np.asarray(jax.jit(jax.grad(loss))(h)))
    assert np.abs(pulls[-1] - pulls[-2]).max() > 1e-3, n


LEARNED = [p for p in members(VQ, ResidualVQ) if isinstance(getattr(p.values[0], "stage", p.values[0]), VQ)]


@pytest.mark.parametrize(("module", "shape"), LEARNED)
def test_gradient_of_a_codebook_is_that_of_the_rows_that_were_used(module, shape):
  if isinstance(module, ResidualVQ):
    module = module.clone(dropout=0.5)
  variables, h = begin(module, shape, batch=4)

  def loss(v):
    latent = module.apply(v, h, train=True, rngs=RNGS)
    return sum(latent.terms.values()) + (latent.z**2).sum(), latent.codes

  of, codes = jax.jit(jax.grad(loss, has_aux=True))(variables)
  stages = {"": codes} if isinstance(module, VQ) else {f"stages_{i}": codes[..., i] for i in range(codes.shape[-1])}
  if isinstance(module, ResidualVQ) and module.shared:
    stages = {"stages_0": codes}
  for name, seen in stages.items():
    rows = (of["params"][name] if name else of["params"])["codebook"]
    used = set(np.asarray(seen).ravel().tolist()) - {-1}
    assert set(np.flatnonzero(np.abs(rows).sum(-1) > 0)) == used and 0 < len(used) < 16, name


# -- codes


KIN = ("rotation", "legacy", "unprojected", "restart", "shared", "nested")  # of others in the list: the same embed
CODED = [p for p in BOTTLENECKS if p[1]().vocab is not None and not any(word in p[0] for word in KIN)]


@pytest.mark.parametrize(("name", "make", "shape"), CODED, ids=[p[0] for p in CODED])
def test_every_code_has_a_z_of_its_own(name, make, shape):
  """With `test_contract`, where codes give the z that they were found with: index and z are a bijection."""
  module, h = make(), jax.random.normal(KEY, (2, *shape))
  variables = jax.jit(lambda: module.init(RNGS, h, train=True))()
  latent = jax.jit(lambda: module.apply(variables, h, train=False))()
  grids = module.layout(latent.z.shape[1:-1])
  vocabs = module.vocab if isinstance(module.vocab, tuple) else (module.vocab,)
  places = np.cumsum([0, *map(np.prod, grids[:-1])]) if len(grids) > 1 else range(latent.codes[0, ..., :].shape[-1])
  grouped = len(grids) == 1 and latent.codes.ndim == latent.z.ndim
  for i, place in enumerate(places if grouped or len(grids) > 1 else [0]):  # every group, or the first of every grid
    vocab = vocabs[i] if len(vocabs) > 1 else vocabs[0]
    some = np.unique(np.linspace(0, vocab - 1, 1024).astype(np.int32))  # all, but of 18 bits: those have their own test
    every = np.broadcast_to(np.asarray(latent.codes[:1]), (len(some), *latent.codes.shape[1:])).copy()
    if len(grids) > 1:
      every[:, place] = some
    else:
      flat = every.reshape(len(some), -1, latent.codes.shape[-1] if grouped else 1)
      flat[:, 0, place] = some
    z = np.asarray(module.apply(variables, jnp.asarray(every), method="embed")).reshape(len(some), -1)
    assert len(np.unique(z, axis=0)) == len(some) == min(vocab, 1024), (name, place)


@pytest.mark.parametrize(
  "module",
  [
    FSQ((64, 64, 64), project=False),
    FSQ((8,) * 6, project=False, symmetric=True),
    FSQ((2,) * 18, project=False, symmetric=True),
    ResidualFSQ((8,) * 6, quantizers=1, project=False),
  ],
  ids=["fsq", "symmetric", "symmetric binary", "residual fsq"],
)
def test_2_to_the_18_levels_are_a_bijection(module):
  levels, every = np.array(module.levels), np.arange(2**18)
  assert module.vocab == 2**18
  one = isinstance(module, ResidualFSQ)
  z = np.asarray(jax.jit(lambda c: module.apply({}, c, method="embed"))(every[:, None] if one else every))
  if one:
    reach = levels / (levels - 1)
    h = reach * np.arctanh(z / reach)
  elif module.symmetric:
    h = np.arctanh(0.999 * z)
  else:
    half, offset = (levels - 1) * (1 - 1e-3) / 2, np.where(levels % 2, 0.0, 0.5)
    h = np.arctanh(np.clip((z * (levels // 2) + offset) / half, -0.99999, 0.99999)) - np.arctanh(offset / half)
  codes = jax.jit(lambda h: module.apply({}, h, train=False).codes)(np.asarray(h, np.float32)[None])
  np.testing.assert_array_equal(np.asarray(codes).reshape(-1), every)


@pytest.mark.slow
def test_2_to_the_18_rows_are_found_again():
  module = EMAVQ(vocab=2**18, dim=3, project=False)
  variables = module.init(RNGS, jnp.zeros((1, 1, 3)), train=False)
  table, some = np.asarray(variables["codebook"]["embedding"]), np.random.default_rng(0).integers(0, 2**18, 256)
  some[:2] = 0, 2**18 - 1
  np.testing.assert_array_equal(module.apply(variables, jnp.arange(2**18), method="embed"), table)
  np.testing.assert_array_equal(module.apply(variables, table[some], method="find"), some)


@pytest.mark.parametrize("make", [LFQ, BSQ])
def test_a_million_words_of_36_bits(make):
  module, rng = make(bits=36, groups=2, joint=6, project=False), np.random.default_rng(0)
  words = rng.integers(0, 2**36, 10**6, dtype=np.int64)
  codes = np.stack([words % 2**18, words >> 18], -1).astype(np.int32)
  there = jax.jit(lambda c: module.apply({}, c, method="embed"))
  back = jax.jit(lambda z: module.apply({}, z, method="indices"))
  for part in codes.reshape(8, 1, -1, 2):
    np.testing.assert_array_equal(back(there(part)), part)
  bits = np.asarray(there(codes[None, :1000]))[0] > 0
  np.testing.assert_array_equal((bits * 2 ** np.arange(36, dtype=np.int64)).sum(-1), words[:1000])


# -- what is planted is found


@pytest.mark.parametrize(
  ("shared", "fields"), [(False, {"kmeans": 5}), (False, {"restart": 0.2}), (True, {"restart": 0.2})], ids=str
)
def test_residual_stages_find_planted_clusters(shared, fields):
  centres = 10.0 * jax.random.normal(jax.random.key(3), (8, 4))
  h = (centres + 0.05 * jax.random.normal(KEY, (16, 8, 4))).reshape(1, 128, 4)
  stage = EMAVQ(vocab=32, dim=4, decay=0.8, project=False, **fields)
  module = ResidualVQ(stage, quantizers=2, shared=shared)
  variables = jax.jit(lambda: module.init(RNGS, h, train=True))()
  step = jax.jit(lambda v, key: module.apply(v, h, train=True, mutable=["codebook"], rngs={"bottleneck": key}))
  for i in range(30):
    _, variables = step(variables, jax.random.key(i))
  codes = module.apply(variables, h, train=False).codes
  z = module.apply(variables, codes[..., :1], method="embed")
  assert float(jnp.abs(z - h).max()) < 1.0  # clusters are apart by more: each has a row of its own
