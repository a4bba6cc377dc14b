"""Residual quantisers: what is left of what is left, prefixes, stages left out, shared and factorised codebooks."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from latents.bottlenecks import EMAVQ, VQ, ResidualFSQ, ResidualVQ
from latents.errors import UserError

KEY = jax.random.key(0)
RNGS = {"params": KEY, "bottleneck": KEY}


def normal(*shape, seed=1):
  return jax.random.normal(jax.random.key(seed), shape)


def learned(**fields):
  """A module of learned stages in front of which nothing stands, its variables, h, and the codebooks as arrays."""
  module, h = ResidualVQ(VQ(vocab=6, dim=3, project=False), quantizers=3, **fields), normal(4, 5, 3)
  variables = module.init(RNGS, h, train=True)
  params = variables["params"]
  books = [np.asarray(params[f"stages_{0 if module.shared else i}"]["codebook"]) for i in range(3)]
  return module, variables, h, books


@pytest.mark.parametrize("shared", [False, True])
def test_residuals_and_losses_by_hand(shared):
  module, variables, h, books = learned(shared=shared)
  latent = module.apply(variables, h, train=True)
  left, total, loss = np.asarray(h, np.float64), 0.0, 0.0
  for i, book in enumerate(books):
    codes = np.square(left[..., None, :] - book).sum(-1).argmin(-1)
    np.testing.assert_array_equal(latent.codes[..., i], codes)
    loss += 1.25 * np.square(left - book[codes]).mean()
    left, total = left - book[codes], total + book[codes]
    np.testing.assert_allclose(module.apply(variables, latent.codes[..., : i + 1], method="embed"), total, atol=1e-6)
  np.testing.assert_allclose(latent.z, total, atol=1e-6)
  np.testing.assert_allclose(latent.terms["vq"], loss, rtol=1e-5)
  assert set(variables["params"]) == ({"stages_0"} if shared else {"stages_0", "stages_1", "stages_2"})


def test_gradients_once_around_the_sum_and_of_every_stage():
  module, variables, h, books = learned()
  jacobian = jax.jacrev(lambda h: module.apply(variables, h, train=True).z)(h).reshape(60, 60)
  np.testing.assert_array_equal(jacobian, np.eye(60))
  latent = module.apply(variables, h, train=True)
  # commitment: every stage pulls h by what it leaves, 2 beta r_{i+1} / n
  pull = jax.grad(lambda h: module.apply(variables, h, train=True).terms["vq"])(h)
  left, wanted = np.asarray(h, np.float64), 0.0
  for i, book in enumerate(books):
    left = left - book[np.asarray(latent.codes[..., i])]
    assert np.abs(left).max() > 0.1
    wanted = wanted + 0.25 * 2 * left / left.size
  np.testing.assert_allclose(pull, wanted, atol=1e-6)
  # the codebooks: exactly the rows that a stage used
  of = jax.grad(lambda v: module.apply(v, h, train=True).terms["vq"] + module.apply(v, h, train=True).z.sum())(
    variables
  )
  for i in range(3):
    moved = np.abs(of["params"][f"stages_{i}"]["codebook"]).sum(-1) > 0
    assert set(np.flatnonzero(moved)) == set(np.asarray(latent.codes[..., i]).ravel().tolist())


def test_rotation_is_that_of_the_whole_sum():
  module, variables, h, _ = learned()
  turned = module.clone(stage=module.stage.clone(gradient="rotation"))
  latent = turned.apply(variables, h, train=True)
  jacobian = jax.jacrev(lambda h: turned.apply(variables, h, train=True).z)(h)[0, 0, :, 0, 0]
  scale = np.linalg.norm(latent.z[0, 0]) / np.linalg.norm(h[0, 0])
  np.testing.assert_allclose(jacobian.T @ jacobian, scale**2 * np.eye(3), atol=1e-4)
  np.testing.assert_allclose(jacobian @ h[0, 0], latent.z[0, 0], atol=1e-4)


def test_norms_fall_where_nothing_is_a_code():
  module, variables, h, _ = learned()
  zeroed = jax.tree.map(lambda book: book.at[0].set(0.0), variables)
  codes = module.apply(zeroed, h, train=False).codes
  norms = [np.linalg.norm(h, axis=-1)]
  for n in (1, 2, 3):
    norms.append(np.linalg.norm(h - module.apply(zeroed, codes[..., :n], method="embed"), axis=-1))
  assert (np.diff(norms, axis=0) <= 1e-6).all() and norms[-1].mean() < 0.8 * norms[0].mean()


def test_stages_that_are_left_out_count_nowhere():
  module, variables, h, books = learned(dropout=1.0)
  latent = module.apply(variables, h, train=True, rngs=RNGS)
  whole = module.apply(variables, h, train=False)
  kept = np.asarray((latent.codes >= 0).sum(-1))
  assert (kept == kept[:, :1]).all() and set(kept[:, 0].tolist()) > {1}  # of an example, not of a place
  for b, n in enumerate(kept[:, 0]):
    np.testing.assert_array_equal(latent.codes[b, :, :n], whole.codes[b, :, :n])
    np.testing.assert_array_equal(latent.codes[b, :, n:], -1)
    np.testing.assert_allclose(latent.z[b], module.apply(variables, whole.codes[b, :, :n], method="embed"), atol=1e-6)
  np.testing.assert_allclose(module.apply(variables, latent.codes, method="embed"), latent.z, atol=1e-6)
  left, loss = np.asarray(h, np.float64), 0.0
  for i, book in enumerate(books):
    left = left - book[np.asarray(whole.codes[..., i])]
    loss += 1.25 * (np.square(left) * (kept > i)[..., None]).mean()
  np.testing.assert_allclose(latent.terms["vq"], loss, rtol=1e-5)
  p = [np.bincount(np.asarray(whole.codes[kept[:, 0] > i, :, i]).ravel(), minlength=6) for i in range(3)]
  p = [counts / max(counts.sum(), 1) for counts in p]  # the logs are of what was kept
  np.testing.assert_allclose(latent.logs["usage"], np.mean([(q > 0).mean() for q in p]), rtol=1e-5)
  entropies = [-(q[q > 0] * np.log(q[q > 0])).sum() for q in p]
  np.testing.assert_allclose(latent.logs["perplexity"], np.exp(entropies).mean(), rtol=1e-5)
  many = ResidualFSQ((3, 3), 4, project=False, dropout=0.5).apply({}, normal(4000, 2), train=True, rngs=RNGS)
  counts = np.bincount(np.asarray((many.codes >= 0).sum(-1)), minlength=5)
  assert (np.abs(counts - np.array([0, 500, 500, 500, 2500])) < 120).all(), counts
  named = module.apply(variables, whole, method="variants")
  assert set(named) == {"", "1 stages"}
  np.testing.assert_allclose(named["1 stages"].z, books[0][whole.codes[..., 0]], atol=1e-6)
  assert set(learned()[0].apply(variables, whole, method="variants")) == {""}


@pytest.mark.parametrize("shared", [False, True])
def test_averages_move_once_by_what_was_kept(shared):
  stage = EMAVQ(vocab=5, dim=2, decay=0.8, project=False)
  module, h = ResidualVQ(stage, quantizers=3, shared=shared, dropout=1.0), normal(6, 4, 2)
  variables = module.init(RNGS, h, train=True)
  old = variables["codebook"]
  latent, state = module.apply(variables, h, train=True, mutable=["codebook"], rngs=RNGS)
  left, counts, sums = np.asarray(h, np.float64), np.zeros((3, 5)), np.zeros((3, 5, 2))
  whole = module.apply(variables, h, train=False).codes
  for i in range(3):
    book, codes = np.asarray(old[f"stages_{0 if shared else i}"]["embedding"]), np.asarray(whole[..., i])
    kept = np.asarray(latent.codes[..., i]) >= 0
    np.add.at(counts[i], codes[kept], 1)
    np.add.at(sums[i], codes[kept], left[kept])
    left = left - book[codes]
  for i, place in enumerate(["stages_0"] if shared else ["stages_0", "stages_1", "stages_2"]):
    n, m = (counts.sum(0), sums.sum(0)) if shared else (counts[i], sums[i])
    np.testing.assert_allclose(state["codebook"][place]["counts"], 0.8 + 0.2 * n, rtol=1e-5)
    wanted = 0.8 * np.asarray(old[place]["sums"]) + 0.2 * m
    np.testing.assert_allclose(state["codebook"][place]["sums"], wanted, atol=1e-5)


def test_restart_asks_for_a_share_of_the_tokens_that_were_kept():
  """200 codes for 4 tokens a stage: all that decay to less than half of kept / V start again with that count."""
  stage = EMAVQ(vocab=200, dim=2, decay=0.0, restart=0.5, project=False)
  module, h = ResidualVQ(stage, quantizers=2, dropout=1.0), normal(8, 4, 2)
  variables = module.init(RNGS, h, train=True)
  latent, state = module.apply(variables, h, train=True, mutable=["codebook"], rngs=RNGS)
  for i in range(2):
    kept = int((latent.codes[..., i] >= 0).sum())
    counts = np.asarray(state["codebook"][f"stages_{i}"]["counts"])
    assert kept > 0 and counts.min() == np.float32(0.5 * kept / 200)


def test_factorised_codes_go_down_and_up_in_every_stage():
  module, h = ResidualVQ(VQ(vocab=6, dim=2, normalise="search"), quantizers=2, width=5), normal(2, 3, 5)
  variables = module.init(RNGS, h, train=True)
  params = jax.tree.map(np.asarray, variables["params"])
  latent = module.apply(variables, h, train=True)
  left, total = np.asarray(h, np.float64), 0.0
  dense = lambda x, p: x @ p["kernel"] + p["bias"]
  for i in range(2):
    stage = params[f"stages_{i}"]
    near, book = dense(left, stage["projection"]), stage["codebook"]
    cosine = near @ book.T / np.linalg.norm(book, axis=-1)
    np.testing.assert_array_equal(latent.codes[..., i], cosine.argmax(-1))
    part = dense(book[cosine.argmax(-1)], params[f"lifts_{i}"])
    left, total = left - part, total + part
  np.testing.assert_allclose(latent.z, total, atol=1e-5)
  np.testing.assert_allclose(module.apply(variables, latent.codes, method="embed"), latent.z, atol=1e-5)
  # the decoder's wish reaches h, the ways down and up of every stage, and no codebook
  of_h, of = jax.grad(lambda h, v: module.apply(v, h, train=True).z.sum(), (0, 1))(h, variables)
  down_up = [
    stage["projection"]["kernel"] @ params[f"lifts_{i}"]["kernel"]
    for i, stage in enumerate((params["stages_0"], params["stages_1"]))
  ]
  np.testing.assert_allclose(of_h, np.broadcast_to(sum(m.sum(-1) for m in down_up), h.shape), atol=1e-5)
  for i in range(2):
    assert np.abs(of["params"][f"stages_{i}"]["projection"]["kernel"]).max() > 0
    assert np.abs(of["params"][f"lifts_{i}"]["kernel"]).max() > 0
    assert not np.any(of["params"][f"stages_{i}"]["codebook"])


@pytest.mark.parametrize(
  ("module", "words"),
  [
    (ResidualVQ(VQ(vocab=4, dim=3), quantizers=0), "at least one quantizer"),
    (ResidualVQ(VQ(vocab=4, dim=3), dropout=1.5), "a share in"),
    (ResidualVQ(VQ(vocab=4, dim=2, project=False)), "got 3 channels"),
    (ResidualVQ(VQ(vocab=4, dim=2), width=4), "got 3 channels"),
    (ResidualVQ(VQ(vocab=4, dim=2, project=False), width=3), "project=True"),
    (ResidualFSQ((3, 3), quantizers=2, dropout=-1.0), "a share in"),
  ],
)
def test_bad_input_is_one_line(module, words):
  with pytest.raises(UserError, match=words) as error:
    module.init(RNGS, normal(1, 2, 3), train=True)
  assert "\n" not in str(error.value)


def test_codes_out_of_range_are_refused():
  module, variables, _, _ = learned()
  with pytest.raises(UserError, match="codes are -1 to 5, got 6"):
    module.apply(variables, jnp.array([[[0, 6, 1]]]), method="embed")
