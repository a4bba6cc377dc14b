"""VAR's quantiser: the scales one after the other by hand, what a prior may see of them, and resizing by matrices."""

import itertools

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from latents.bottlenecks import VQ, MultiScaleVQ
from latents.bottlenecks.multi_scale import phi_of
from latents.errors import UserError
from latents.nn.resize import area, bicubic, resized
from tests.test_nn import drawn, normal

KEY = jax.random.key(0)
SCALES = ((1, 1), (2, 2), (3, 3), (4, 4))
SIZES = np.cumsum([0, 1, 4, 9, 16])
QUANTISER = MultiScaleVQ(VQ(12, 5, project=False), SCALES, share=2)
H = 2 * normal(3, 4, 4, 5)
PARAMS = drawn(QUANTISER, H, train=True)
LATENT = jax.jit(lambda p, h: QUANTISER.apply(p, h, train=True))(PARAMS, H)


def call(method: str, *args):
  return QUANTISER.apply(PARAMS, *args, method=method)


def test_codes_and_terms_are_those_of_the_algorithm():
  book = np.asarray(PARAMS["params"]["stage"]["codebook"])
  z, loss = np.zeros(H.shape, np.float32), 0.0
  for k, (n, _) in enumerate(SCALES):
    rest = resized(H - z, (n, n), area).reshape(3, -1, 5)
    codes = np.square(np.asarray(rest)[:, :, None] - book).sum(-1).argmin(-1)
    assert np.array_equal(codes, LATENT.codes[:, SIZES[k] : SIZES[k + 1]])
    up = resized(jnp.asarray(book[codes].reshape(3, n, n, 5)), (4, 4), bicubic)
    own = PARAMS["params"][f"phis_{phi_of(4, 2)[k]}"]
    conv = jax.lax.conv_general_dilated(up, own["kernel"], (1, 1), "SAME", dimension_numbers=("NHWC", "HWIO", "NHWC"))
    z = z + np.asarray(up / 2 + (conv + own["bias"]) / 2)
    loss += np.square(z - H).mean() * 1.25 / 4
  assert np.abs(LATENT.z - z).max() < 1e-4
  assert float(LATENT.terms["vq"]) == pytest.approx(float(loss), rel=1e-4)


def test_embedded_codes_are_the_encoders_latent():
  assert np.abs(call("embed", LATENT.codes) - LATENT.z).max() < 1e-5
  assert LATENT.codes.shape == (3, 30) and QUANTISER.vocab == (12,) * 4 and QUANTISER.layout((4, 4)) == SCALES


def test_the_gradient_goes_once_through_the_sum():
  weight = normal(*H.shape, seed=1)

  @jax.jit
  def slopes(h, params):
    through = jax.grad(lambda h, p: jnp.sum(QUANTISER.apply(p, h, train=True).z * weight), (0, 1))(h, params)
    return *through, jax.grad(lambda p: QUANTISER.apply(p, h, train=True).terms["vq"])(params)["params"]

  of_h, of_params, terms = slopes(H, PARAMS)
  assert np.abs(of_h - weight).max() < 1e-6
  assert all(not np.any(leaf) for leaf in jax.tree.leaves(of_params))
  used = np.isin(np.arange(12), LATENT.codes)
  assert np.array_equal(np.any(np.asarray(terms["stage"]["codebook"]), -1), used)
  assert all(np.any(terms[f"phis_{i}"]["kernel"]) for i in range(2))  # the codebook's loss teaches phi too


@pytest.mark.parametrize("scale", range(4))
def test_what_is_read_at_a_scale_is_of_the_scales_before(scale: int):
  codes = np.array(LATENT.codes)
  codes[:, SIZES[scale]] = (codes[:, SIZES[scale]] + 5) % 12
  before, after = call("inputs", LATENT.codes), call("inputs", jnp.asarray(codes))
  end = SIZES[scale + 1]
  assert np.array_equal(before[:, :end], after[:, :end])
  if scale < 3:
    assert np.abs(before - after)[:, end : SIZES[scale + 2]].max() > 1e-3


def test_reading_scale_by_scale_is_reading_at_once():
  z, rows = call("empty", 3), []
  for k in range(4):
    rows.append(call("seen", z, k))
    z = call("add", z, LATENT.codes[:, SIZES[k] : SIZES[k + 1]], k)
  assert np.abs(jnp.concatenate(rows, 1) - call("inputs", LATENT.codes)).max() < 1e-6
  assert not np.any(rows[0]) and np.abs(z - LATENT.z).max() < 1e-5


def test_trained_scales_come_nearer_and_nearer():
  """Features of smooth fields: each scale says part of what those before left."""
  quantiser = MultiScaleVQ(VQ(16, 4, project=False), SCALES, share=1)
  optimizer = optax.adam(1e-2)

  def fields(key):
    coarse = jax.random.normal(key, (32, 2, 2, 4))
    return resized(coarse, (4, 4), bicubic) + 0.2 * jax.random.normal(jax.random.fold_in(key, 1), (32, 4, 4, 4))

  loss = lambda p, h: quantiser.apply(p, h, train=True).terms["vq"]

  @jax.jit
  def train(params):
    def step(carry, key):
      params, state = carry
      updates, state = optimizer.update(jax.grad(loss)(params, fields(key)), state)
      return (optax.apply_updates(params, updates), state), None

    return jax.lax.scan(step, (params, optimizer.init(params)), jax.random.split(KEY, 200))[0][0]

  h = fields(jax.random.key(9))
  params = train(jax.jit(lambda: quantiser.init(KEY, h, train=True))())
  codes, z, errors = quantiser.apply(params, h, train=False).codes, jnp.zeros_like(h), [float(jnp.square(h).mean())]
  for k in range(4):
    z = quantiser.apply(params, z, codes[:, SIZES[k] : SIZES[k + 1]], k, method="add")
    errors.append(float(jnp.square(z - h).mean()))
  assert all(after < 0.97 * before for before, after in itertools.pairwise(errors)), errors
  assert errors[-1] < 0.5 * errors[0]


def test_which_scale_has_which_phi():
  assert phi_of(4, 0) == (0, 1, 2, 3) and phi_of(3, 1) == (0, 0, 0) and phi_of(1, 4) == (0,)
  places = [1 / 12, 13 / 36, 23 / 36, 11 / 12]  # of the released four
  found = phi_of(10, 4)
  assert found == tuple(sorted(found)) and set(found) == {0, 1, 2, 3}
  assert all(abs(places[p] - k / 9) <= min(abs(q - k / 9) for q in places) + 1e-9 for k, p in enumerate(found))


def test_matrices_of_sizes():
  assert np.allclose(area(4, 2), [[0.5, 0.5, 0, 0], [0, 0, 0.5, 0.5]])
  assert np.allclose(area(5, 2), [[1 / 3, 1 / 3, 1 / 3, 0, 0], [0, 0, 1 / 3, 1 / 3, 1 / 3]])
  assert np.array_equal(area(3, 3), np.eye(3)) and np.allclose(bicubic(3, 3), np.eye(3))
  for n, m in ((1, 6), (2, 5), (7, 3)):
    assert np.allclose(area(n, m).sum(1), 1) and np.allclose(bicubic(n, m).sum(1), 1)
  line = jnp.arange(24.0).reshape(2, 6, 2)
  assert np.allclose(resized(line, (3,), area), line.reshape(2, 3, 2, 2).mean(2))


def test_mistakes_are_one_clear_line():
  with pytest.raises(UserError, match=r"declared for features of \(4, 4, 5\)"):
    QUANTISER.apply(PARAMS, normal(3, 4, 4, 6), train=False)
  with pytest.raises(UserError, match="project=False"):
    jax.eval_shape(lambda: MultiScaleVQ(VQ(12, 5), SCALES).init(KEY, H, train=True))
  with pytest.raises(UserError, match="the scales have 30 codes"):
    call("embed", LATENT.codes[:, :29])
