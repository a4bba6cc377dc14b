"""Paths, times, samplers and guidance against closed forms. Order tests run in float64."""

import functools
import itertools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from latents.diffusion import (
  AB2,
  DDIM,
  RK4,
  DPMSolver2M,
  Euler,
  Heun,
  Linear,
  LogitNormal,
  Midpoint,
  Process,
  StochasticHeun,
  Uniform,
  dimension_shift,
  grid,
  guide,
  inside,
  shift,
)
from latents.diffusion.samplers.base import runs
from tests.members.diffusion import PATHS

KEY = jax.random.key(0)
LINEAR = Linear()
PLAIN = Process().field  # a velocity -> the field that samplers walk along
MEANS, STDS, WEIGHTS = np.array([-1.5, 0.2, 2.0]), np.array([0.3, 0.5, 0.4]), np.array([0.3, 0.5, 0.2])


def mixture_velocity(xp, x, tau):
  """E[eps - x0 | x_tau = x] for data from a mixture of three Gaussians."""
  x = x[..., None]
  mean = (1 - tau) * MEANS
  var = (1 - tau) ** 2 * STDS**2 + tau**2
  log = xp.log(WEIGHTS) - 0.5 * xp.log(var) - 0.5 * (x - mean) ** 2 / var
  share = xp.exp(log - log.max(-1, keepdims=True))
  share = share / share.sum(-1, keepdims=True)
  x0 = MEANS + (1 - tau) * STDS**2 / var * (x - mean)
  eps = tau / var * (x - mean)
  return (share * (eps - x0)).sum(-1)


def test_conversions_round_trip_in_float64():
  with jax.enable_x64(True):
    x0, eps = (jnp.asarray(np.random.default_rng(i).normal(size=(5, 3, 2))) for i in range(2))
    tau = jnp.linspace(0.1, 0.9, 5)
    x, v = LINEAR.mix(x0, eps, tau), eps - x0
    for got, expected in [
      (LINEAR.velocity(x0, eps, tau), v),
      (LINEAR.convert(v, "velocity", "data", x, tau), x0),
      (LINEAR.convert(v, "velocity", "noise", x, tau), eps),
      (LINEAR.convert(x0, "data", "velocity", x, tau), v),
      (LINEAR.convert(eps, "noise", "velocity", x, tau), v),
      (LINEAR.convert(v, "velocity", "score", x, tau), -eps / tau[:, None, None]),
      (LINEAR.mix(x0, eps, 0.25), 0.75 * x0 + 0.25 * eps),
    ]:
      assert got.dtype == jnp.float64
      assert np.abs(got - expected).max() < 1e-10


def test_all_parametrisations_have_one_gradient_under_matching_weights():
  """v-loss = x0-loss / tau^2 = eps-loss / (1 - tau)^2 on the linear path, so the gradients agree too."""
  with jax.enable_x64(True):
    x0, eps, v_hat = (jnp.asarray(np.random.default_rng(i).normal(size=(6, 4))) for i in range(3))
    tau = jnp.linspace(0.1, 0.9, 6)
    x = LINEAR.mix(x0, eps, tau)
    wide = tau[:, None]
    losses = [
      lambda v: jnp.mean((v - LINEAR.velocity(x0, eps, tau)) ** 2),
      lambda v: jnp.mean((LINEAR.convert(v, "velocity", "data", x, tau) - x0) ** 2 / wide**2),
      lambda v: jnp.mean((LINEAR.convert(v, "velocity", "noise", x, tau) - eps) ** 2 / (1 - wide) ** 2),
    ]
    first, *others = [jax.grad(loss)(v_hat) for loss in losses]
    for other in others:
      assert np.abs(first - other).max() < 1e-10


def test_shifts_compose_and_move_the_log_snr():
  with jax.enable_x64(True):
    tau = jnp.linspace(0.01, 0.99, 50)
    assert np.abs(shift(shift(tau, 2.0), 3.0) - shift(tau, 6.0)).max() < 1e-12
    assert np.abs(shift(shift(tau, 2.5), 1 / 2.5) - tau).max() < 1e-12
    assert np.abs(LINEAR.log_snr(shift(tau, 3.0)) - (LINEAR.log_snr(tau) - 2 * np.log(3.0))).max() < 1e-10
  assert shift(0.0, 3.0) == 0.0
  assert shift(1.0, 3.0) == 1.0
  # LightningDiT's shift of 0.3 in data time t = 1 - tau is 1 / 0.3 in noise time
  t = np.linspace(0, 1, 11)
  assert np.allclose(1 - 0.3 * t / (1 - 0.7 * t), shift(1 - t, 1 / 0.3))


def test_dimension_shift_has_the_published_values():
  assert dimension_shift(4 * 32 * 32) == 1.0
  assert dimension_shift(64) == 1.0
  assert dimension_shift(32 * 16 * 16) == pytest.approx(np.sqrt(2))
  assert dimension_shift(768 * 16 * 16) == pytest.approx(6.928, abs=1e-3)
  assert dimension_shift(400, base=100) == 2.0


def test_training_times_have_their_distribution():
  tau = np.asarray(LogitNormal(0.5, 1.3)(KEY, 40_000))
  assert (tau > 0).all() and (tau < 1).all()
  logit = np.log(tau / (1 - tau))
  assert abs(logit.mean() - 0.5) < 0.03
  assert abs(logit.std() - 1.3) < 0.03
  flat = np.asarray(Uniform()(KEY, 40_000))
  assert np.abs(np.quantile(flat, [0.1, 0.5, 0.9]) - [0.1, 0.5, 0.9]).max() < 0.01


def test_grid_falls_from_one_to_zero():
  assert np.allclose(grid(4), [1, 0.75, 0.5, 0.25, 0])
  shifted = grid(50, 3.0)
  assert shifted.shape == (51,) and shifted[0] == 1.0 and shifted[-1] == 0.0
  assert (np.diff(shifted) < 0).all() and (shifted >= grid(50)).all()


@functools.cache
def reference() -> tuple[np.ndarray, np.ndarray]:
  """Starts, and their ends on the mixture's exact field by RK4 in 8192 steps."""
  start = np.linspace(-2, 2, 9)
  x, times = start, np.linspace(1, 0, 8193)
  for now, then in itertools.pairwise(times):
    h = then - now
    k1 = mixture_velocity(np, x, now)
    k2 = mixture_velocity(np, x + h / 2 * k1, now + h / 2)
    k3 = mixture_velocity(np, x + h / 2 * k2, now + h / 2)
    x = x + h / 6 * (k1 + 2 * k2 + 2 * k3 + mixture_velocity(np, x + h * k3, then))
  return start, x


def errors(sampler, counts: list[int]) -> np.ndarray:
  """Root mean square end errors."""
  start, end = reference()
  with jax.enable_x64(True):
    field = lambda x, tau: mixture_velocity(jnp, x, tau)
    keys = jax.random.split(KEY, len(start))
    ends = [np.asarray(sampler(PLAIN(field), jnp.asarray(start), grid(n), keys=keys)) for n in counts]
  return np.array([np.sqrt(np.mean((found - end) ** 2)) for found in ends])


@pytest.mark.parametrize(
  ("sampler", "order"),
  [(Euler(), 1), (DDIM(), 1), (Heun(), 2), (StochasticHeun(churn=0.0), 2), (Midpoint(), 2), (AB2(), 2), (RK4(), 4)],
)
def test_samplers_have_their_order(sampler, order: int):
  found = errors(sampler, [128, 256, 512, 1024])
  assert np.abs(np.diff(-np.log2(found)) - order).max() < 0.15


def test_a_gaussian_field_ends_at_the_closed_form():
  """For data N(m, s^2) the flow maps noise e to m + s e; the published error of Euler at 32 steps is 2.0e-2."""
  m, s = 1.3, 0.4
  e = np.random.default_rng(0).normal(size=4000)

  def field(x, tau):
    var = (1 - tau) ** 2 * s**2 + tau**2
    return (tau - (1 - tau) * s**2) / var * (x - (1 - tau) * m) - m

  with jax.enable_x64(True):
    error = lambda sampler, n: float(
      np.sqrt(np.mean((sampler(PLAIN(field), jnp.asarray(e), grid(n)) - (m + s * e)) ** 2))
    )
    assert error(Euler(), 32) == pytest.approx(2.0e-2, rel=0.1)
    assert error(Euler(), 256) == pytest.approx(2.6e-3, rel=0.1)
    assert error(Heun(), 256) < 3e-5


def test_a_scan_is_the_python_loop():
  x = np.linspace(-1, 1, 5, dtype=np.float32)
  field = lambda x, tau: jnp.sin(3 * x) + tau
  looped = jnp.asarray(x)
  times = jnp.asarray(grid(7, 2.0), jnp.float32)
  for now, then in itertools.pairwise(times):
    looped = looped + (then - now) * field(looped, now)
  assert np.abs(Euler()(PLAIN(field), jnp.asarray(x), grid(7, 2.0)) - looped).max() < 1e-6


@pytest.mark.parametrize("make", [m[1] for m in PATHS], ids=[m[0] for m in PATHS])
def test_guidance_is_linear_in_every_parametrisation(make):
  """Mixed as what the network gives, or as anything else: one field. On the first channels too."""
  with jax.enable_x64(True):
    path, scale = make(), 2.5
    x, u, c = (jnp.asarray(np.random.default_rng(i).normal(size=(4, 3))) for i in range(3))
    tau = jnp.array([0.2, 0.4, 0.6, 0.8])
    for predict, channels in itertools.product(("velocity", "data", "noise", "edm"), (None, 2)):
      process = Process(path, predict)
      read = lambda out, kind, process=process: process.field(lambda x, tau: out).read(kind, x, tau)[0]
      mixed = process.guide(u, c, scale, channels)
      for kind in ("velocity", "data", "noise", "score"):
        expected = guide(read(u, kind), read(c, kind), scale)
        if channels:
          expected = jnp.concatenate([expected[:, :channels], read(c, kind)[:, channels:]], -1)
        assert np.allclose(read(mixed, kind), expected, rtol=1e-9, atol=1e-9 * path.scale)


def test_guidance_at_one_and_at_zero():
  u, c = (jax.random.normal(jax.random.key(i), (4, 3)) for i in range(2))
  assert np.allclose(guide(u, c, 1.0), c, atol=1e-6)
  assert np.array_equal(guide(u, c, 0.0), u)


def test_the_runs_of_guided_steps_cover_the_grid_once():
  times = grid(10)
  guided = inside(times, (0.25, 0.65))
  assert list(runs(guided)) == [(0, 4, False), (4, 8, True), (8, 10, False)]
  assert list(runs(inside(times, (0.0, 1.0)))) == [(0, 10, True)]
  assert list(runs(inside(times, (2.0, 3.0)))) == [(0, 10, False)]


@pytest.mark.parametrize(
  ("sampler", "single", "double"),
  [(Euler(), 6, 4), (Heun(), 11, 8), (Midpoint(), 12, 8), (AB2(), 6, 4), (RK4(), 24, 16), (DPMSolver2M(), 6, 4)],
)
def test_outside_the_interval_only_the_conditional_half_runs(sampler, single: int, double: int):
  """Evaluations are counted as the program runs, one call of the host a time."""
  calls = {"conditional": 0, "guided": 0}

  def field(name):
    def count(tau):
      calls[name] += 1
      return tau

    return lambda x, tau: jax.pure_callback(count, jax.ShapeDtypeStruct((), jnp.float32), tau) * 0 + x

  both = Process().field(field("conditional"), field("guided"))
  x = sampler(both, jnp.ones(3), grid(10), guided=inside(grid(10), (0.25, 0.65)))
  x.block_until_ready()
  assert calls == {"conditional": single, "guided": double}
  plain = sampler(PLAIN(lambda x, tau: x), jnp.ones(3), grid(10))
  assert np.abs(x - plain).max() < 1e-6 or not isinstance(sampler, Euler)
