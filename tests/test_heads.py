"""Heads against numpy in float64: masses and densities, draws against them, numbers at the edges."""

import itertools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy.special import expit, log_softmax, logsumexp, softmax
from scipy.stats import norm

from latents.backbones import PixelCNNPlus, PixelSNAIL, VectorTransformer
from latents.errors import UserError
from latents.priors.heads import GaussianMixture, LogisticMixture
from latents.types import Latent
from tests.test_nn import drawn as random_variables

KEY = jax.random.key(0)


def numbers(*shape: int, scale: float = 1.0, seed: int = 0) -> np.ndarray:
  return (scale * np.random.default_rng(seed).normal(size=shape)).astype(np.float32)


def masses(given: np.ndarray, dim: int, components: int, levels: int) -> np.ndarray:
  """[levels,..] (dim axes): the probability of every pixel by section 2 of arXiv:1701.05517, as it is written there."""
  given = given.astype(np.float64)
  weights, rest = softmax(given[:components]), given[components:].reshape(components, -1)
  found = np.zeros((levels,) * dim)
  for place in itertools.product(range(levels), repeat=dim):
    x = [2 * code / (levels - 1) - 1 for code in place]
    for weight, numbers in zip(weights, rest, strict=True):
      told, mass = np.tanh(numbers[2 * dim :]), weight
      for c, code in enumerate(place):
        mean = numbers[c] + (told[0] * x[0] if c == 1 else told[1] * x[0] + told[2] * x[1] if c == 2 else 0)
        scale, half = np.exp(max(numbers[dim + c], -7.0)), 1 / (levels - 1)
        upper = expit((x[c] + half - mean) / scale) if code < levels - 1 else 1.0
        lower = expit((x[c] - half - mean) / scale) if code > 0 else 0.0
        mass = mass * (upper - lower)
      found[place] += mass
  return found


@pytest.mark.parametrize(("dim", "levels"), [(1, 17), (1, 2), (1, 256), (3, 4)])
def test_masses_of_logistics_are_the_formula_and_sum_to_one(dim, levels):
  head = LogisticMixture(dim=dim, components=3, levels=levels)
  given = numbers(head.out, scale=1.5)
  every = np.array(list(itertools.product(range(levels), repeat=dim)), np.int32)
  latent = Latent(codes=jnp.asarray(every if dim == 3 else every[:, 0]))
  nll = head.apply({}, jnp.broadcast_to(given, (len(every), head.out)), head.read(latent), method="nll")
  found = np.exp(-np.asarray(nll, np.float64))
  np.testing.assert_allclose(found, masses(given, dim, 3, levels).reshape(-1), rtol=2e-4, atol=1e-9)
  assert found.sum() == pytest.approx(1, abs=1e-5)
  np.testing.assert_array_equal(head.write(head.read(latent)).codes, latent.codes)


def test_nats_of_logistics_and_their_slopes_are_finite_at_the_edges():
  head = LogisticMixture(dim=3, components=2, levels=256)
  edges = np.array(list(itertools.product((-1e4, -1.0, 1e4), (-60.0, -7.0, 0.0, 40.0))), np.float32)
  given = np.concatenate([[1e3, -1e3], *([m, -m, m, s, s, s, 50.0, -50.0, 0.0] for m, s in edges[:2])])[: head.out]
  rows = np.stack([given.copy() for _ in edges])
  for row, (mean, scale) in zip(rows, edges, strict=True):
    for k in range(2):
      row[2 + 9 * k : 8 + 9 * k] = mean, -mean, mean, scale, scale, scale
  rows = jnp.asarray(rows, jnp.float32)
  for pixel in ((0, 0, 0), (255, 255, 255), (0, 255, 128)):
    x = head.read(Latent(codes=jnp.broadcast_to(jnp.array(pixel, jnp.int32), (len(rows), 3))))
    value, slope = jax.value_and_grad(lambda rows, x=x: head.apply({}, rows, x, method="nll").sum())(rows)
    assert np.isfinite(value) and np.isfinite(slope).all()


@pytest.mark.parametrize(("dim", "levels", "temperature"), [(1, 9, 1.0), (3, 3, 1.0), (1, 9, 0.5)])
def test_draws_of_logistics_are_as_often_as_their_masses(dim, levels, temperature):
  """A temperature is another mixture: logits divided by it, scales multiplied."""
  head, n = LogisticMixture(dim=dim, components=2, levels=levels), 20_000
  given = numbers(head.out, seed=3)
  draw = jax.jit(
    lambda keys: head.apply({}, keys, jnp.broadcast_to(given, (n, head.out)), None, 1.0, temperature, method="draw")
  )
  codes = np.asarray(head.write(draw(jax.random.split(KEY, n))).codes).reshape(n, dim)
  found = np.zeros((levels,) * dim)
  np.add.at(found, tuple(codes.T), 1 / n)
  other = given.copy()
  other[:2] /= temperature
  other[2:].reshape(2, -1)[:, dim : 2 * dim] += np.log(temperature)
  assert np.abs(found - masses(other, dim, 2, levels)).max() < 4.5 * 0.5 / np.sqrt(n)


def test_the_likeliest_pixel_and_what_a_mixture_of_logistics_refuses():
  head = LogisticMixture(dim=1, components=2, levels=5)
  given = jnp.array([[0.0, 1.0, -0.9, 0.0, 0.4, 3.0]])
  draw = lambda **told: head.apply({}, jax.random.split(KEY, 1), given, told.get("other"), 2.0, 0.0, method="draw")
  assert draw().tolist() == [[0.5]]  # the mean of the second component, on the grid -1, -0.5, .., 1
  with pytest.raises(UserError, match="no guidance"):
    draw(other=given)
  for bad, words in (
    (LogisticMixture(dim=2), "1 or 3 channels, not 2"),
    (LogisticMixture(dim=3), "of 3 channels, but the codes have 4"),
  ):
    with pytest.raises(UserError, match=words):
      bad.read(Latent(codes=jnp.zeros((1, 4), jnp.int32)))
  with pytest.raises(UserError, match="continuous"):
    head.read(Latent(z=jnp.zeros((1, 4, 1))))


def parts(given: np.ndarray, components: int, dim: int):
  rest = given[..., components:].astype(np.float64).reshape(*given.shape[:-1], components, 2 * dim)
  raw = rest[..., dim:]
  return given[..., :components].astype(np.float64), rest[..., :dim], (raw + np.sqrt(raw**2 + 4)) / 2


def test_nats_of_a_mixture_of_gaussians_are_the_formula():
  head = GaussianMixture(dim=4, components=3)
  given, x = numbers(50, head.out, scale=2.0), numbers(50, 4, seed=1)
  given[:10, 3:] *= 40  # deviations from 1e-3 to 1e2
  logits, mean, deviation = parts(given, 3, 4)
  wanted = -logsumexp(log_softmax(logits, -1) + norm.logpdf(x[:, None], mean, deviation).sum(-1), axis=-1)
  np.testing.assert_allclose(head.apply({}, given, x, method="nll"), wanted, rtol=2e-4, atol=1e-4)
  assert parts(np.zeros((1, 27)), 3, 4)[2].tolist() == np.ones((1, 3, 4)).tolist()


def test_nats_of_gaussians_and_their_slopes_are_finite_at_the_edges():
  head = GaussianMixture(dim=2, components=2)
  rows = jnp.asarray([[1e3, -1e3, m, -m, s, s, m, m, s, s] for m in (-1e3, 0.0, 1e3) for s in (-1e6, 0.0, 1e6)])
  value, slope = jax.value_and_grad(lambda rows: head.apply({}, rows, jnp.zeros((9, 2)), method="nll").sum())(rows)
  assert np.isfinite(value) and np.isfinite(slope).all()


def drawn(head, given, other, guidance: float, temperature: float = 1.0, n: int = 20_000) -> np.ndarray:
  row = lambda a: None if a is None else jnp.broadcast_to(jnp.asarray(a, jnp.float32), (n, head.out))
  draw = lambda keys: head.apply({}, keys, row(given), row(other), guidance, temperature, method="draw")
  return np.asarray(jax.jit(draw)(jax.random.split(KEY, n)), np.float64)


def test_draws_of_gaussians_have_their_moments_guided_ones_too():
  """One component: N(m_c, s_c)^s N(m_u, s_u)^(1-s) has precision s / s_c^2 + (1 - s) / s_u^2 and is Gaussian."""
  head, given, other = GaussianMixture(dim=2, components=1), [0.0, 1.0, -2.0, -0.5, 0.2], [3.0, 0.5, 1.0, 0.3, 0.9]
  (_, mean, deviation), (_, mean_u, deviation_u) = (parts(np.array([a]), 1, 2) for a in (given, other))
  for s, told in ((1.0, None), (0.0, other), (1.5, other), (3.0, other)):
    own, theirs = s / deviation**2, (1 - s) / deviation_u**2
    wanted = (own * mean + theirs * mean_u) / (own + theirs)
    x = drawn(head, given, told, s)
    spread = 1 / np.sqrt(own + theirs)[0, 0]
    assert (np.abs(x.mean(0) - wanted[0, 0]) < 5 * spread / np.sqrt(len(x))).all()
    np.testing.assert_allclose(x.std(0), spread, rtol=0.025)
    assert np.abs(np.mean(((x - wanted[0, 0]) / spread) ** 4, 0) - 3).max() < 0.25
  np.testing.assert_allclose(drawn(head, given, None, 1.0, 0.5).std(0), 0.5 * deviation[0, 0], rtol=0.025)
  np.testing.assert_allclose(drawn(head, given, None, 1.0, 0.0, 3), np.tile(mean[0, 0], (3, 1)), rtol=1e-6)
  # where the unconditional one is so narrow that no Gaussian comes out: the conditional one
  narrow = [0.0, 0.5, 1.0, -3.0, -3.0]
  np.testing.assert_array_equal(drawn(head, given, narrow, 3.0, n=50), drawn(head, given, None, 1.0, n=50))


def test_components_are_chosen_by_their_weights():
  head = GaussianMixture(dim=1, components=2)
  given = [np.log(0.3), np.log(0.7), -50.0, 0.0, 50.0, 0.0]
  for guidance, other in ((1.0, None), (2.0, [5.0, -5.0, -50.0, 0.0, 50.0, 0.0])):
    assert (drawn(head, given, other, guidance) > 0).mean() == pytest.approx(0.7, abs=0.015)


@pytest.mark.parametrize(
  ("net", "x"),
  [
    (lambda: PixelCNNPlus((2, 2, 1), 6, width=8, blocks=1, scales=1, dtype="bfloat16"), jnp.zeros((1, 4, 1))),
    (lambda: PixelSNAIL((2, 2, 1), 6, width=8, blocks=1, resnets=1, dtype="bfloat16"), jnp.zeros((1, 4, 1))),
    (lambda: VectorTransformer(16, 1, 2, 4, width_in=2, out=8, dtype="bfloat16"), jnp.zeros((1, 4, 2))),
  ],
)
def test_what_a_head_is_told_is_not_rounded_to_bfloat16(net, x):
  """A mean near 1 would be half a bin of 256 off."""
  out = np.asarray(net().apply(random_variables(net(), x, None), x, None))
  assert out.dtype == np.float32 and (out != out.astype(jnp.bfloat16).astype(np.float32)).mean() > 0.5
