"""Quantisers of the nearest code: the search, the choice of gradient, the learned codebook, bad input."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from latents.bottlenecks import EMAVQ, VQ
from latents.bottlenecks import nearest as nearest_file
from latents.bottlenecks.nearest import nearest_code, rotated, through, unit
from latents.errors import UserError

KEY = jax.random.key(0)
RNGS = {"params": KEY, "bottleneck": KEY}


def normal(*shape, seed=1):
  return jax.random.normal(jax.random.key(seed), shape)


# -- the search


@pytest.mark.parametrize("vocab", [1, 7, 64, 150, 300])
def test_search_in_blocks_finds_what_the_whole_matrix_finds(vocab, monkeypatch):
  rows, book = normal(33, 5), normal(vocab, 5, seed=2)
  book = book.at[vocab // 2].set(book[0])  # equals: the first one counts, in whatever block
  rows = rows.at[3].set(book[0])
  whole = np.square(np.asarray(rows)[:, None] - np.asarray(book)).sum(-1).argmin(-1)
  np.testing.assert_array_equal(nearest_code(rows, book), whole)
  monkeypatch.setattr(nearest_file, "LOT", 10)
  for at_once in (10**6, 33 * 40, 1):  # one block of lots, blocks of lots, a lot a block
    monkeypatch.setattr(nearest_file, "AT_ONCE", at_once)
    np.testing.assert_array_equal(nearest_code(rows, book), whole)
  assert int(nearest_code(rows, book)[3]) == 0


def test_search_never_holds_all_distances():
  rows, book = jax.ShapeDtypeStruct((4096, 8), jnp.float32), jax.ShapeDtypeStruct((65536, 8), jnp.float32)
  memory = jax.jit(nearest_code).lower(rows, book).compile().memory_analysis()
  assert memory.temp_size_in_bytes < 4096 * 65536 * 4 / 4


# -- the gradient


def rotation(x, q):
  """R of the paper as a product of two reflections, float64: across the plane normal to u, then to u + p."""
  u, p = x / np.linalg.norm(x), q / np.linalg.norm(q)
  reflect = lambda n: np.eye(len(n)) - 2 * np.outer(n, n) / (n @ n)
  return reflect(u + p) @ reflect(u)


@pytest.mark.parametrize("dim", [2, 3, 16])
def test_rotation_turns_and_scales(dim):
  x, q = normal(dim), 3.0 * normal(dim, seed=2)
  np.testing.assert_array_equal(rotated(x, q), q)
  jacobian = np.asarray(jax.jacrev(rotated)(x, q), np.float64)
  scale = np.linalg.norm(q) / np.linalg.norm(x)
  np.testing.assert_allclose(
    jacobian, scale * rotation(np.asarray(x, np.float64), np.asarray(q, np.float64)), atol=1e-4
  )
  np.testing.assert_allclose(jacobian.T @ jacobian, scale**2 * np.eye(dim), atol=1e-4 * scale**2)
  assert np.linalg.det(jacobian / scale) == pytest.approx(1.0, abs=1e-4)
  np.testing.assert_allclose(jacobian @ np.asarray(x), q, rtol=1e-4, atol=1e-4)  # forward, it is s R x
  np.testing.assert_allclose(jax.jacfwd(rotated)(x, q), jacobian, atol=1e-5)
  np.testing.assert_array_equal(jax.jacrev(rotated, argnums=1)(x, q), np.zeros((dim, dim)))
  grad = np.asarray(normal(dim, seed=3), np.float64)  # its angle to q is that of the moved gradient to x
  moved = jacobian.T @ grad
  cosine = lambda a, b: a @ b / np.linalg.norm(a) / np.linalg.norm(b)
  assert cosine(grad, np.asarray(q)) == pytest.approx(cosine(moved, np.asarray(x)), abs=1e-5)


def test_rotation_where_there_is_none_to_make():
  x = normal(4)
  np.testing.assert_allclose(jax.jacrev(rotated)(x, x), np.eye(4), atol=1e-6)  # at its code: straight through
  turned = np.asarray(jax.jacrev(rotated)(x, -x))
  np.testing.assert_allclose(turned @ turned.T, np.eye(4), atol=1e-5)
  np.testing.assert_allclose(turned @ np.asarray(x), -x, atol=1e-5)
  np.testing.assert_array_equal(jax.jacrev(rotated)(jnp.zeros(4), x), np.eye(4))
  np.testing.assert_array_equal(jax.jacrev(rotated)(x, jnp.zeros(4)), np.zeros((4, 4)))


@pytest.mark.parametrize("make", [EMAVQ, VQ], ids=["ema", "learned"])
def test_gradient_is_the_one_that_was_chosen(make):
  h = 2.0 * normal(2, 3, 4)
  modules = {g: make(vocab=6, dim=4, project=False, gradient=g) for g in ("straight", "rotation")}
  variables = modules["straight"].init(RNGS, h, train=True)
  out = {g: m.apply(variables, h, train=True) for g, m in modules.items()}
  np.testing.assert_array_equal(out["straight"].z, out["rotation"].z)
  for gradient, module in modules.items():
    jacobian = jax.jacrev(lambda h, module=module: module.apply(variables, h, train=True).z)(h)
    for b, n in np.ndindex(2, 3):
      x, q = np.asarray(h[b, n], np.float64), np.asarray(out[gradient].z[b, n], np.float64)
      wanted = np.eye(4) if gradient == "straight" else np.linalg.norm(q) / np.linalg.norm(x) * rotation(x, q)
      np.testing.assert_allclose(jacobian[b, n, :, b, n], wanted, atol=1e-4)
    assert float(jnp.abs(jacobian).sum()) == pytest.approx(
      sum(float(jnp.abs(jacobian[b, n, :, b, n]).sum()) for b, n in np.ndindex(2, 3)), rel=1e-6
    )


# -- the learned codebook


def test_vq_losses_and_gradients_by_hand():
  h, book = normal(2, 5, 3), normal(9, 3, seed=2)
  z = np.asarray(h)
  for legacy, first, second in ((False, 1.0, 0.3), (True, 0.3, 1.0)):
    module = VQ(vocab=9, dim=3, beta=0.3, legacy=legacy, project=False)
    loss = lambda book, h, module=module: module.apply({"params": {"codebook": book}}, h, train=True).terms["vq"]
    latent = module.apply({"params": {"codebook": book}}, h, train=True)
    np.testing.assert_array_equal(latent.z, np.asarray(book)[latent.codes])
    q, codes = np.asarray(latent.z), np.asarray(latent.codes)
    np.testing.assert_allclose(latent.terms["vq"], (first + second) * np.square(z - q).mean(), rtol=1e-5)
    of_book, of_h = jax.grad(loss, (0, 1))(book, h)
    np.testing.assert_allclose(of_h, second * 2 * (z - q) / z.size, atol=1e-6)
    wanted = np.zeros((9, 3))
    np.add.at(wanted, codes.reshape(-1), (first * 2 * (q - z) / z.size).reshape(-1, 3))
    np.testing.assert_allclose(of_book, wanted, atol=1e-6)
    used = set(codes.ravel().tolist())
    assert {i for i in range(9) if np.abs(of_book[i]).sum() > 0} == used and len(used) < 9
    # what the decoder wants reaches h alone
    pull = jax.grad(lambda b, module=module: module.apply({"params": {"codebook": b}}, h, train=True).z.sum())(book)
    assert not np.any(pull)


def test_unit_codes_are_those_of_the_largest_cosine_and_do_not_feel_lengths():
  module, h, book = VQ(vocab=8, dim=4, normalise="codes", project=False), normal(3, 5, 4), 2.0 * normal(8, 4, seed=2)
  variables = {"params": {"codebook": book}}
  latent = module.apply(variables, h, train=True)
  cosine = np.einsum("bnd,vd->bnv", unit(h), unit(book))
  np.testing.assert_array_equal(latent.codes, cosine.argmax(-1))
  np.testing.assert_allclose(np.linalg.norm(latent.z, axis=-1), 1.0, rtol=1e-6)
  np.testing.assert_allclose(latent.terms["vq"], 1.25 * (2 - 2 * cosine.max(-1)).mean() / 4, rtol=1e-4)
  other = module.apply({"params": {"codebook": 7.0 * book}}, 0.1 * h, train=True)
  np.testing.assert_array_equal(other.codes, latent.codes)
  np.testing.assert_allclose(other.z, latent.z, atol=1e-6)
  pull = jax.grad(lambda h: (module.apply(variables, h, train=True).z * normal(3, 5, 4, seed=4)).sum())(h)
  np.testing.assert_allclose((pull * h).sum(-1), 0.0, atol=1e-5)  # lengths do not matter: no pull along h
  # for the search alone: the same codes, but the rows themselves
  search = VQ(vocab=8, dim=4, normalise="search", project=False).apply(variables, h, train=True)
  np.testing.assert_array_equal(search.codes, latent.codes)
  np.testing.assert_array_equal(search.z, book[search.codes])
  np.testing.assert_allclose(search.terms["vq"], 1.25 * jnp.square(h - search.z).mean(), rtol=1e-5)
  np.testing.assert_array_equal(module.apply(variables, h, method="snap"), latent.z)


def test_learned_codebook_has_no_state_and_finds_planted_clusters():
  centres = 3.0 * normal(4, 3, seed=3)
  h = (centres[None] + 0.01 * normal(8, 4, 3)).reshape(1, 32, 3)
  module = VQ(vocab=4, dim=3, project=False)
  assert set(module.init(RNGS, h, train=True)) == {"params"}
  book = centres + 0.5 * normal(4, 3, seed=5)
  loss = lambda b: module.apply({"params": {"codebook": b}}, h, train=True).terms["vq"]
  step = jax.jit(lambda b: b - 3.0 * jax.grad(loss)(b))
  for _ in range(40):
    book = step(book)
  np.testing.assert_allclose(book, np.asarray(h).reshape(8, 4, 3).mean(0), atol=1e-3)


# -- bad input


@pytest.mark.parametrize(
  ("run", "words"),
  [
    (lambda: VQ(vocab=4, dim=1, gradient="rotation").init(RNGS, normal(1, 2, 3), train=False), "wants a dim of 2"),
    (lambda: VQ(vocab=4, dim=2, project=False).init(RNGS, normal(1, 2, 3), train=False), "got 3 channels"),
    (lambda: started(EMAVQ(vocab=9, dim=2, kmeans=1)), "9 codes cannot start from a batch of 8 vectors"),
    (lambda: embedded(EMAVQ(vocab=4, dim=2), 4), "codes are 0 to 3, got 4"),
    (lambda: embedded(VQ(vocab=4, dim=2), -1), "codes are 0 to 3, got -1"),
  ],
)
def test_bad_input_is_one_line(run, words):
  with pytest.raises(UserError, match=words) as error:
    run()
  assert "\n" not in str(error.value)


def started(module):
  h = normal(2, 4, 3)
  return module.apply(module.init(RNGS, h, train=True), h, train=True, mutable=["codebook"], rngs=RNGS)


def embedded(module, code):
  return module.apply(module.init(RNGS, normal(1, 2, 3), train=True), jnp.array([[0, code]]), method="embed")


def test_through_is_by_name():
  x, q = normal(3), normal(3, seed=2)
  np.testing.assert_array_equal(jax.jacrev(lambda x: through(x, q, "straight"))(x), np.eye(3))
  np.testing.assert_allclose(jax.jacrev(lambda x: through(x, q, "rotation"))(x), jax.jacrev(rotated)(x, q))
