"""Paths, their conversions, and what a process makes of a network's output. In float64 but where it says so."""

import itertools
import typing
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from latents.diffusion import (
  Betas,
  Continuous,
  Cosine,
  Exploding,
  Grid,
  Linear,
  Process,
  ShiftedCosine,
  Times,
  posterior,
  shift,
)
from latents.diffusion.paths import AnyPath
from latents.diffusion.weights import Weight
from latents.errors import UserError
from tests.members.diffusion import GRIDS, PATHS, TIMES, WEIGHTS

BY_NAME = pytest.mark.parametrize("make", [m[1] for m in PATHS], ids=[m[0] for m in PATHS])
KINDS: Any = ("velocity", "data", "noise", "score")
KEY = jax.random.key(0)


@pytest.fixture(autouse=True)
def wide():
  with jax.enable_x64(True):
    yield


def normal(seed: int, *shape: int):
  return jnp.asarray(np.random.default_rng(seed).normal(size=shape))


@BY_NAME
def test_a_path_goes_from_data_to_noise(make):
  path, tau = make(), np.linspace(0, 1, 101)
  alpha, sigma = path.alpha(tau), path.sigma(tau)
  assert alpha[0] == 1 and sigma[0] == 0 and abs(sigma[-1] / path.scale - 1) < 1e-4
  assert (np.diff(sigma) > 0).all() and (np.diff(path.log_snr(tau[1:])) < 0).all()
  if not isinstance(path, Exploding):
    assert alpha[-1] < 0.013 and (np.diff(alpha) < 0).all()
  inner = tau[1:-1]
  assert np.abs(path.log_snr(inner) - np.log(path.alpha(inner) ** 2 / path.sigma(inner) ** 2)).max() < 1e-9
  # the slopes, at times within a step of the chain
  middle, h = (np.arange(20, 1000, 37) - 0.5) / 1000, 1e-6
  for value, slope in ((path.alpha, path.alpha_slope), (path.sigma, path.sigma_slope)):
    assert np.abs((value(middle + h) - value(middle - h)) / (2 * h) - slope(middle)).max() < 1e-7
  fall = (path.log_snr(middle - h) - path.log_snr(middle + h)) / (2 * h)
  assert np.abs(path.log_snr_slope(middle) / fall - 1).max() < 1e-6
  for f in (path.alpha, path.sigma, path.alpha_slope, path.sigma_slope, path.log_snr_slope):
    assert np.allclose(f(jnp.asarray(inner)), f(inner), rtol=1e-9, atol=0)
  assert np.abs(path.time(path.log_snr(inner)) - inner).max() < 1e-12


@BY_NAME
def test_all_parametrisations_convert_into_each_other(make):
  path, x0, eps = make(), normal(0, 6, 3, 2), normal(1, 6, 3, 2)
  tau = jnp.asarray([0.0305, 0.1005, 0.3005, 0.5005, 0.8005, 0.9805])
  wide = lambda f: f(tau)[:, None, None]
  x = path.mix(x0, eps, tau)
  exact = {
    "velocity": wide(path.alpha_slope) * x0 + wide(path.sigma_slope) * eps,
    "data": x0,
    "noise": eps,
    "score": -eps / wide(path.sigma),
  }
  assert np.abs(x - wide(path.alpha) * x0 - wide(path.sigma) * eps).max() < 1e-12
  assert np.abs(path.velocity(x0, eps, tau) - exact["velocity"]).max() < 1e-12
  for source, target in itertools.product(KINDS, KINDS):
    got = path.convert(exact[source], source, target, x, tau)
    assert got.dtype == jnp.float64
    assert np.abs(got - exact[target]).max() < 1e-10, (source, target)
  # an error in the data is `unit` times as large as another estimate
  for kind in KINDS:
    off = path.convert(x0 + 1e-3, "data", kind, x, tau) - exact[kind]
    assert np.abs(np.abs(off) / 1e-3 - path.unit(kind, tau)[:, None, None]).max() < 1e-6 * path.unit(kind, tau).max()


@BY_NAME
def test_edms_preconditioning_converts_on_every_path(make):
  """F of the paper's eq. 7 in y = x / alpha, s = sigma / alpha, written down here."""
  path, x0, eps = make(), normal(0, 6, 3, 2), normal(1, 6, 3, 2)
  tau, d = jnp.asarray([0.0305, 0.1005, 0.3005, 0.5005, 0.8005, 0.9805]), 0.7
  x, process = path.mix(x0, eps, tau), Process(path, "edm", data_std=d)
  alpha, s = path.alpha(tau)[:, None, None], (path.sigma(tau) / path.alpha(tau))[:, None, None]
  f = (x0 - d**2 / (s**2 + d**2) * x / alpha) / (s * d / np.sqrt(s**2 + d**2))
  assert np.abs(process.data(f, x, tau) - x0).max() < 1e-10
  seen, told = process.inputs(x, tau)
  assert np.abs(seen - x / alpha / np.sqrt(s**2 + d**2)).max() < 1e-10
  assert np.abs(told - np.log(s[:, 0, 0]) / 4000).max() < 1e-12
  exact = {"velocity": path.velocity(x0, eps, tau), "noise": eps, "score": -eps / path.sigma(tau)[:, None, None]}
  field = process.field(lambda x, tau: f)
  for kind in KINDS[:1] + KINDS[2:]:
    assert np.abs(field.read(kind, x, tau)[0] - exact[kind]).max() < 1e-10 * max(1, path.scale)


@BY_NAME
def test_the_ends_are_finite_and_at_the_data_x_is_the_data(make):
  with jax.enable_x64(False):
    path, x = make(), jnp.asarray(normal(0, 4, 3), jnp.float32)
    for source, target, end in itertools.product(KINDS, KINDS, (0.0, 1.0)):
      assert np.isfinite(path.convert(x, source, target, x, jnp.full(4, end))).all(), (source, target, end)
    for source in ("velocity", "noise", "score"):
      assert np.abs(path.convert(0.1 * x, source, "data", x, jnp.zeros(4)) - x).max() < 2e-6, source


def test_the_published_ends_of_the_tables():
  """sigma / alpha at the last and first step: DDPM, LDM on ImageNet, Stable Diffusion 1."""
  noise = lambda path, t: float(path.sigma(t / 1000) / path.alpha(t / 1000))
  assert noise(Betas(), 1000) == pytest.approx(157, rel=5e-3) and noise(Betas(), 1) == pytest.approx(0.01, rel=1e-3)
  ldm = Betas(0.0015, 0.0195, rise="root")
  assert noise(ldm, 1000) == pytest.approx(83.8, rel=1e-3) and noise(ldm, 1) == pytest.approx(0.0388, rel=2e-3)
  assert noise(Betas(0.00085, 0.012, rise="root"), 1000) == pytest.approx(14.6, rel=2e-3)
  bar = np.cumprod(1 - np.linspace(1e-4, 0.02, 1000))
  assert np.abs(Betas().alpha(np.arange(1, 1001) / 1000) ** 2 - bar).max() < 1e-12
  cosine = lambda t: np.cos((t + 0.008) / 1.008 * np.pi / 2) ** 2
  assert Cosine().alpha(0.3) ** 2 == pytest.approx(cosine(0.3) / cosine(0.0), rel=1e-12)


def test_every_path_weight_time_and_grid_has_a_line():
  made = lambda makers: {type(make()) for make in makers}
  assert made([m[1] for m in PATHS]) == set(typing.get_args(AnyPath)) and made(WEIGHTS) == set(typing.get_args(Weight))
  assert made(TIMES) == set(typing.get_args(Times)) and made(GRIDS) == set(typing.get_args(Grid))


def test_the_published_formulas_of_other_paths():
  tau = np.linspace(0.01, 0.99, 50)
  gvp = Cosine(0.0)
  assert np.abs(gvp.alpha(tau) - np.cos(np.pi * tau / 2)).max() < 1e-14
  assert np.abs(gvp.sigma(tau) - np.sin(np.pi * tau / 2)).max() < 1e-14
  assert np.abs(gvp.sigma_slope(np.zeros(1)) - np.pi / 2).max() < 1e-14
  # SiT's VP path, in its time 1 - tau
  log_alpha = -0.25 * tau**2 * (20 - 0.1) - 0.5 * tau * 0.1
  assert np.abs(np.log(Continuous().alpha(tau)) - log_alpha).max() < 1e-12
  many = Betas(0.1 / 1e5, 20 / 1e5, 100_000)
  assert np.abs(many.alpha(tau) - Continuous().alpha(tau)).max() < 1e-4
  # simple diffusion, and its interpolation from 32 at the noise to 512 at the data
  cosine = -2 * np.log(np.tan(np.pi * tau / 2))
  shifted = lambda noise, side: cosine + 2 * np.log(noise / side)
  assert np.abs(ShiftedCosine(256).log_snr(tau) - shifted(64, 256)).max() < 1e-12
  between = tau * shifted(32, 512) + (1 - tau) * shifted(512, 512)
  assert np.abs(ShiftedCosine(512, 32.0, 512.0).log_snr(tau) - between).max() < 1e-12
  assert np.abs(ShiftedCosine(64).alpha(tau) - gvp.alpha(tau)).max() < 1e-14


def test_zero_terminal_snr_is_shifted_and_scaled_alpha():
  """Lin et al., algorithm 1, in their order of steps."""
  path, t = Betas(0.00085, 0.012, rise="root", zero_snr=True), np.arange(1, 1001)
  root = np.sqrt(np.cumprod(1 - np.linspace(0.00085**0.5, 0.012**0.5, 1000) ** 2))
  wanted = (root - root[-1]) * root[0] / (root[0] - root[-1])
  assert np.abs(path.alpha(t / 1000) - wanted).max() < 1e-12 and path.alpha(1.0) == 0 and path.sigma(1.0) == 1
  assert path.alpha(0.9995) == pytest.approx(wanted[-2] / 2, rel=1e-9)  # a straight line in the last step
  assert path.alpha_slope(np.array([1.0, 0.9995])) == pytest.approx(-1000 * wanted[-2], rel=1e-9)


@pytest.mark.parametrize(
  "make", [lambda: Continuous(0.0), lambda: ShiftedCosine(0), lambda: ShiftedCosine(64, 9.0, 2.0)]
)
def test_paths_that_are_none_are_one_line(make):
  with pytest.raises(UserError) as found:
    make()
  assert "\n" not in str(found.value)


@BY_NAME
def test_the_posterior_is_bayes_on_gaussians(make):
  """x_s | x0 and x_t | x_s are Gaussian: precision and mean of x_s | x_t, x0 by completing the square."""
  path, now, then = make(), np.array([0.2, 0.7, 0.9]), np.array([0.1, 0.69, 0.3])
  a, b = path.alpha(then), path.alpha(now) / path.alpha(then)
  one, two = path.sigma(then) ** 2, path.sigma(now) ** 2 - b**2 * path.sigma(then) ** 2
  precision = 1 / one + b**2 / two
  q = posterior(path, now, then)
  for got, expected in zip(q, (b / two / precision, a / one / precision, 1 / precision, two), strict=True):
    assert np.abs(got / expected - 1).max() < 1e-9
  end = posterior(path, np.array([0.5]), np.array([0.0]))
  assert np.allclose([v[0] for v in end], [0, 1, 0, path.sigma(0.5) ** 2], atol=1e-12)


def test_the_posterior_of_ddpm():
  """Ho et al., eqs. 6 and 7, with their betas."""
  t = np.array([2, 17, 500, 1000])
  betas = np.linspace(1e-4, 0.02, 1000)
  bar = np.concatenate([[1.0], np.cumprod(1 - betas)])
  beta = betas[t - 1]
  q = posterior(Betas(), t / 1000, (t - 1) / 1000)
  assert np.allclose(q.large, beta, rtol=1e-8)
  assert np.allclose(q.small, beta * (1 - bar[t - 1]) / (1 - bar[t]), rtol=1e-8)
  assert np.allclose(q.of_data, np.sqrt(bar[t - 1]) * beta / (1 - bar[t]), rtol=1e-8)
  assert np.allclose(q.of_x, np.sqrt(1 - beta) * (1 - bar[t - 1]) / (1 - bar[t]), rtol=1e-8)


def test_latents_times_k_are_a_log_snr_of_2_ln_k_more():
  """k x0 on a path at tau is x0 at the time where log-SNR is 2 ln k higher, times a number; so is the loss of a network
  that reads either. On the linear path that time is `shift(tau, 1 / k)`."""
  x0, eps = normal(0, 6, 3), normal(1, 6, 3)
  tau = np.linspace(0.2, 0.9, 6)
  for make in (m[1] for m in PATHS):
    path = make()
    for k in (0.5, 3.0):
      level = path.log_snr(tau) + 2 * np.log(k)
      there = path.time(level)
      if not (there > 1e-9).all() or not (there < 1 - 1e-9).all():
        continue  # beyond what the path reaches
      scaled, plain = path.mix(k * x0, eps, jnp.asarray(tau)), path.mix(x0, eps, jnp.asarray(there))
      factor = (path.sigma(tau) / path.sigma(there))[:, None]
      assert np.abs(scaled - factor * plain).max() < 1e-9 * np.abs(factor).max()
      if isinstance(path, Linear):
        assert np.abs(there - shift(tau, 1 / k)).max() < 1e-12


def test_the_default_is_flow_matching_to_the_bit():
  with jax.enable_x64(False):
    x0, eps, v = (jnp.asarray(normal(i, 5, 4, 3), jnp.float32) for i in range(3))
    tau = jnp.linspace(0.0, 1.0, 5)
    wide = tau[:, None, None]
    process = Process()
    x = process.path.mix(x0, eps, tau)
    assert np.array_equal(x, (1 - wide) * x0 + wide * eps)
    terms = process.terms(v, x0, eps, x, tau)
    assert list(terms) == ["flow"] and np.array_equal(terms["flow"][0], jnp.square(v - (eps - x0)))
    assert np.array_equal(process.data(v, x, tau), x - wide * v)
    assert process.field(lambda x, tau: v)(x, tau) is v


def bound_by_hand(t: int, x0, data, x, share) -> np.ndarray:
  """iDDPM's term of step t, in bits times 1000, from betas (eqs. 4, 5, 10, 11, 15), without our posterior."""
  betas = np.linspace(1e-4, 0.02, 1000)
  bar = np.concatenate([[1.0], np.cumprod(1 - betas)])
  small = lambda t: betas[t - 1] * (1 - bar[t - 1]) / (1 - bar[t])
  mean = lambda x0: (
    np.sqrt(bar[t - 1]) * betas[t - 1] / (1 - bar[t]) * x0
    + np.sqrt(1 - betas[t - 1]) * (1 - bar[t - 1]) / (1 - bar[t]) * x
  )
  log_variance = share * np.log(betas[t - 1]) + (1 - share) * np.log(small(max(t, 2)))
  variance = np.exp(log_variance)
  if t == 1:
    nats = 0.5 * (np.log(2 * np.pi * variance) + (x0 - mean(data)) ** 2 / variance)
  else:
    nats = 0.5 * (np.log(variance / small(t)) - 1 + (small(t) + (mean(x0) - mean(data)) ** 2) / variance)
  return 1000 * nats / np.log(2)


def test_the_bound_is_iddpms_and_reaches_the_variance_alone():
  process = Process(Betas(), "noise", variance="learned")
  x0, eps, guess, raw = (normal(i, 4, 3) for i in range(4))
  tau = jnp.asarray([0.001, 0.002, 0.4, 1.0])
  x = process.path.mix(x0, eps, tau)
  terms = process.terms(jnp.concatenate([guess, raw], -1), x0, eps, x, tau)
  value, weight = terms["vlb"]
  assert weight == 1e-3 and process.width(3) == 6 and np.allclose(terms["flow"][0], np.square(guess - eps))
  data = np.asarray(process.data(jnp.concatenate([guess, raw], -1), x, tau))
  for i, t in enumerate((1, 2, 400, 1000)):
    expected = bound_by_hand(t, *(np.asarray(v)[i] for v in (x0, data, x, (raw + 1) / 2)))
    assert np.allclose(value[i], expected, rtol=1e-6), t
  total = lambda name: lambda out: process.terms(out, x0, eps, x, tau)[name][0].mean()
  out = jnp.concatenate([guess, raw], -1)
  bound, simple = jax.grad(total("vlb"))(out), jax.grad(total("flow"))(out)
  assert np.array_equal(bound[:, :3], jnp.zeros((4, 3))) and (np.abs(bound[:, 3:]) > 0).all()
  assert np.array_equal(simple[:, 3:], jnp.zeros((4, 3))) and (np.abs(simple[:, :3]) > 0).all()


def test_the_bound_of_the_truth_is_zero():
  process = Process(Betas(), "noise", variance="learned")
  x0, eps = normal(0, 3, 5), normal(1, 3, 5)
  tau = jnp.asarray([0.002, 0.3, 0.9])
  x = process.path.mix(x0, eps, tau)
  exact = jnp.concatenate([eps, -jnp.ones_like(eps)], -1)  # the right mean, the small variance
  assert np.abs(process.terms(exact, x0, eps, x, tau)["vlb"][0]).max() < 1e-3


def test_guidance_leaves_a_learned_variance_to_the_condition():
  u, c = normal(0, 2, 6), normal(1, 2, 6)
  mixed = Process(variance="learned").guide(u, c, 3.0)
  assert np.allclose(mixed[:, :3], u[:, :3] + 3 * (c - u)[:, :3]) and np.array_equal(mixed[:, 3:], c[:, 3:])
  assert np.allclose(Process().guide(u, c, 3.0), u + 3 * (c - u))


def test_linear_is_its_own_formula():
  """What `Linear` overrides equals what every path inherits."""
  from latents.diffusion.paths.base import Path

  path, x, v = Linear(), normal(0, 4, 3), normal(1, 4, 3)
  tau = jnp.linspace(0.1, 0.9, 4)
  for own, inherited in zip(path.from_velocity(x, v, tau), Path.from_velocity(path, x, v, tau), strict=True):
    assert np.abs(own - inherited).max() < 1e-12
  assert np.abs(path.velocity(x, v, tau) - Path.velocity(path, x, v, tau)).max() < 1e-12
