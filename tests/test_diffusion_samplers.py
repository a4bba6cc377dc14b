"""Samplers over the whole grid: guidance that begins and ends, noise by sample and step, exact answers."""

import sys
import typing
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from latents.diffusion import (
  DDIM,
  DDPM,
  RK4,
  Betas,
  Consistency,
  Cosine,
  DPMSolver2M,
  Early,
  EulerMaruyama,
  Even,
  Exploding,
  Karras,
  Linear,
  Process,
  Sampler,
  Steps,
  StochasticHeun,
  Strided,
  grid,
  inside,
  posterior,
)
from latents.errors import UserError
from tests.members.diffusion import PATHS, SAMPLERS

BY_NAME = pytest.mark.parametrize("make", [m[1] for m in SAMPLERS], ids=[m[0] for m in SAMPLERS])
SOLVERS = [m for m in SAMPLERS if not isinstance(m[1](), Consistency)]  # that one reads no denoiser, but jumps
KEYS = jax.vmap(lambda i: jax.random.fold_in(jax.random.key(7), i))(jnp.arange(4))
START = np.random.default_rng(0).normal(size=(4, 3)).astype(np.float32)
MEAN, STD = 1.3, 0.4


def plain(x, tau):
  return jnp.sin(2 * x) + tau * x


def guided(x, tau):
  return jnp.cos(x) - tau


def test_every_sampler_has_a_line():
  assert {type(make()) for _, make in SAMPLERS} == set(typing.get_args(Sampler))


@BY_NAME
def test_a_sample_does_not_depend_on_its_batch(make):
  sampler, times = make(), grid(6)
  field = Process().field(plain, guided)
  run = lambda rows: sampler(
    field, jnp.asarray(START[rows]), times, guided=inside(times, (0.3, 0.7)), keys=KEYS[jnp.arange(4)[rows]]
  )
  whole = run(slice(0, 4))
  halves = np.concatenate([run(slice(0, 2)), run(slice(2, 4))])
  assert np.abs(whole - halves).max() < 1e-6
  assert np.abs(np.asarray(whole) - np.asarray(run(slice(0, 4)))).max() == 0


@BY_NAME
def test_an_interval_cuts_nothing_where_both_fields_are_one(make):
  """History goes on, and no noise is drawn twice."""
  sampler, times = make(), grid(6)
  process = Process(Cosine(), "velocity" if isinstance(sampler, RK4) else "data")
  run = lambda interval: sampler(
    process.field(plain), jnp.asarray(START), times, guided=inside(times, interval), keys=KEYS
  )
  assert np.abs(run((0.3, 0.7)) - run((2.0, 3.0))).max() < 1e-6
  assert np.abs(run((0.0, 1.0)) - run((2.0, 3.0))).max() < 1e-6


def read(path, kind, x, tau, on: bool):
  """The estimate of the loops below, computed outside of the samplers; networks give velocities."""
  v = np.asarray((guided if on else plain)(x, tau), np.float64)
  a, s, da, ds = (float(f(tau)) for f in (path.alpha, path.sigma, path.alpha_slope, path.sigma_slope))
  x0 = (ds * x - s * v) / (a * ds - da * s)
  return {"data": x0, "velocity": v}[kind]


def noise(number: int) -> np.ndarray:
  return np.stack([jax.random.normal(jax.random.fold_in(KEYS[i], number), (3,)) for i in range(4)])


def ddpm_by_hand(path, times, flags, x):
  for k, on in enumerate(flags):
    now, then = times[k], times[k + 1]
    a = path.alpha(now) / path.alpha(then)
    beta = path.sigma(now) ** 2 - a**2 * path.sigma(then) ** 2
    x0 = read(path, "data", x, now, on)
    mean = a * path.sigma(then) ** 2 / path.sigma(now) ** 2 * x + path.alpha(then) * beta / path.sigma(now) ** 2 * x0
    x = mean + np.sqrt(beta) * path.sigma(then) / path.sigma(now) * noise(k)
  return x


def dpm_by_hand(path, times, flags, x):
  """Algorithm 2 of the paper, in logarithms."""
  half = lambda tau: np.log(path.alpha(tau) / path.sigma(tau))
  before, h_before = None, 1.0
  for k, on in enumerate(flags):
    now, then = times[k], times[k + 1]
    x0 = read(path, "data", x, now, on)
    if then == 0:
      return x0
    h = half(then) - half(now)
    d = x0 if before is None else x0 + h / (2 * h_before) * (x0 - before)
    x = path.sigma(then) / path.sigma(now) * x - path.alpha(then) * np.expm1(-h) * d
    before, h_before = x0, h
  return x


def dpm_sde_by_hand(path, times, flags, x):
  half = lambda tau: np.log(path.alpha(tau) / path.sigma(tau))
  before, h_before = None, 1.0
  for k, on in enumerate(flags):
    now, then = times[k], times[k + 1]
    x0 = read(path, "data", x, now, on)
    if then == 0:
      return x0
    h = half(then) - half(now)
    d = x0 if before is None else x0 + h / (2 * h_before) * (x0 - before)
    fresh = -np.expm1(-2 * h)
    x = path.sigma(then) / path.sigma(now) * np.exp(-h) * x + path.alpha(then) * fresh * d
    x = x + path.sigma(then) * np.sqrt(fresh) * noise(k)
    before, h_before = x0, h
  return x


def ddim_by_hand(path, times, flags, x):
  """Eqs. 12 and 16 of the paper, in alpha_bar, on any path; eta = 0.6."""
  for k, on in enumerate(flags):
    (a, s), (b, r) = ((path.alpha(t), path.sigma(t)) for t in times[k : k + 2])
    x0 = read(path, "data", x, times[k], on)
    deviation = 0.6 * r / s * np.sqrt(s**2 - (a * r / b) ** 2)
    x = b * x0 + np.sqrt(r**2 - deviation**2) * (x - a * x0) / s + deviation * noise(k)
  return x


def churn_by_hand(path, times, flags, x):
  """Algorithm 2 in y = x / alpha and s = sigma / alpha for the noise; Heun's step in tau."""
  level = lambda tau: path.sigma(tau) / path.alpha(tau)
  for k, on in enumerate(flags):
    now, then = times[k], times[k + 1]
    if 0.1 <= level(now) <= 2:
      s = level(now) * (1 + min(3 / 8, np.sqrt(2) - 1))
      raised = float(path.time(np.array(-2 * np.log(s))))
      y = x / path.alpha(now) + 1.01 * np.sqrt(s**2 - level(now) ** 2) * noise(k)
      x, now = path.alpha(raised) * y, raised
    v = read(path, "velocity", x, now, on)
    end = x + (then - now) * v
    x = x + (then - now) * (v + read(path, "velocity", end, then, on)) / 2 if then > 0 else end
  return x


def maruyama_by_hand(path, times, flags, x):
  for k, on in enumerate(flags):
    now, h = times[k], times[k + 1] - times[k]
    v, x0 = read(path, "velocity", x, now, on), read(path, "data", x, now, on)
    w = 2 * 0.7 * path.sigma(now) * path.sigma_slope(np.array(now))
    score = -(x - path.alpha(now) * x0) / path.sigma(now) ** 2
    x = x + h * (v - w / 2 * score) + (np.sqrt(w * -h) * noise(k) if k < len(flags) - 1 else 0)
  return x


def consistency_by_hand(path, times, flags, x):
  for k, on in enumerate(flags):
    x0 = read(path, "data", x, times[k], on)
    x = path.alpha(times[k + 1]) * x0 + path.sigma(times[k + 1]) * noise(k)
  return x


LOOPS = {
  "ddpm": (DDPM(8), ddpm_by_hand),
  "dpm": (DPMSolver2M(8), dpm_by_hand),
  "dpm-sde": (DPMSolver2M(8, stochastic=True), dpm_sde_by_hand),
  "ddim": (DDIM(8, 0.6), ddim_by_hand),
  "stochastic-heun": (StochasticHeun(8, 3.0, 0.1, 2.0, 1.01), churn_by_hand),
  "euler-maruyama": (EulerMaruyama(8, scale=0.7), maruyama_by_hand),
  "consistency": (Consistency(8), consistency_by_hand),
}


@pytest.mark.parametrize("name", LOOPS)
@pytest.mark.parametrize("path", [Linear(), Betas(), Cosine()], ids=["linear", "betas", "cosine"])
def test_a_sampler_with_guidance_in_the_middle_is_the_loop_by_hand(name: str, path):
  sampler, loop = LOOPS[name]
  times = 0.97 * grid(8)
  flags = inside(times, (0.3, 0.7))
  assert flags.tolist() == [False, False, False, True, True, True, False, False]
  with jax.enable_x64(True):
    field = Process(path).field(plain, guided)
    got = sampler(field, jnp.asarray(START, jnp.float64), times, guided=flags, keys=KEYS)
    wanted = loop(path, times, flags, np.asarray(START, np.float64))
    assert np.abs(wanted - loop(path, times, ~flags, np.asarray(START, np.float64))).max() > 0.1
  assert np.abs(np.asarray(got) - wanted).max() < 1e-6 * np.abs(wanted).max()


def test_a_solver_may_begin_with_noise_alone():
  """The linear path and the cosine have no data at tau = 1: the first step is that of order 1, and finite."""
  for path in (Linear(), Cosine()):
    field = Process(path, "data").field(lambda x, tau: 0 * x + 0.5)
    for sampler in (DPMSolver2M(5), DDPM(5), Consistency(5)):
      assert np.abs(sampler(field, jnp.asarray(START), grid(5), keys=KEYS) - 0.5).max() < 1e-5


# -- exact answers: data N(MEAN, STD^2)


def denoise(path):
  """E[x0 | x_tau = x]."""

  def data(x, tau):
    a, s = path.alpha(tau), path.sigma(tau)
    return MEAN + a * STD**2 / (a**2 * STD**2 + s**2) * (x - a * MEAN)

  return data


@pytest.mark.parametrize("path", [Linear(), Betas(), Cosine()], ids=["linear", "betas", "cosine"])
def test_dpm_solver_has_order_two(path):
  """Even steps of log-SNR; the flow of a Gaussian is known. Without the last step to tau = 0, which is of order 1."""
  fine = np.linspace(0.02, 0.98, 200_001)
  start, ends = np.linspace(-2, 2, 9), []
  spread = lambda tau: np.sqrt(path.alpha(tau) ** 2 * STD**2 + path.sigma(tau) ** 2)
  with jax.enable_x64(True):
    field = Process(path, "data").field(denoise(path))
    for steps in (64, 128, 256):
      levels = np.linspace(path.log_snr(0.98), path.log_snr(0.02), steps + 1)
      times = np.interp(levels, path.log_snr(fine)[::-1], fine[::-1])
      exact = path.alpha(times[-1]) * MEAN + spread(times[-1]) / spread(times[0]) * (
        start - path.alpha(times[0]) * MEAN
      )
      got = DPMSolver2M(steps)(field, jnp.asarray(start), times)
      ends.append(np.sqrt(np.mean((np.asarray(got) - exact) ** 2)))
  orders = -np.diff(np.log2(ends))
  assert np.abs(orders - 2).max() < 0.2, (ends, orders)


def ends(monkeypatch, sampler, path, times) -> tuple[float, float]:
  """Mean and deviation of what a sampler makes of N(0, scale^2) with the exact velocity of N(MEAN, STD^2): it is affine
  in its start and in the noise of each step, so each gain is found by a row of its own, without random numbers."""
  steps = len(times) - 1

  def one(keys, number, x):
    return (jnp.arange(len(x)) == number + 2)[:, None].astype(x.dtype)

  for module in [m for name, m in sys.modules.items() if name.startswith("latents.diffusion.samplers.")]:
    if hasattr(module, "fresh_noise"):
      monkeypatch.setattr(module, "fresh_noise", one)

  def velocity(x, tau):
    x0 = denoise(path)(x, tau)
    return path.velocity(x0, (x - path.alpha(tau) * x0) / jnp.maximum(path.sigma(tau), 1e-9), tau)

  with jax.enable_x64(True):
    start = jnp.zeros((steps + 2, 1)).at[1].set(path.scale)
    keys = jax.random.split(jax.random.key(0), steps + 2)
    made = np.asarray(sampler(Process(path).field(velocity), start, times, keys=keys))[:, 0]
  return float(made[0]), float(np.sqrt(np.sum((made[1:] - made[0]) ** 2)))


@pytest.mark.parametrize(("variance", "ratio"), [("small", 0.868), ("large", 1.051)])
def test_ancestral_sampling_reproduces_a_gaussian_up_to_its_known_bias(monkeypatch, variance: Any, ratio: float):
  """The ratios of deviations are those of an independent simulation (catalogue, priors 1.14); the mean is exact."""
  for sampler in (DDPM(50, variance), *([DDIM(50, 1.0)] if variance == "small" else [])):
    mean, deviation = ends(monkeypatch, sampler, Betas(), Strided()(50))
    assert abs(mean - MEAN) < 1e-4 and deviation / STD == pytest.approx(ratio, abs=0.005)


def test_the_last_step_of_the_sde_removes_variance_and_a_finer_end_does_not(monkeypatch):
  """Catalogue, priors 1.14: REPA's 250 steps, 1 to 0.04 and then to 0; more steps before the last do not help."""
  ratio = lambda times: ends(monkeypatch, EulerMaruyama(len(times) - 1), Linear(), times)[1] / STD
  assert ratio(Early(0.04)(250)) == pytest.approx(0.983, abs=0.002)
  assert ratio(Early(0.04)(1000)) == pytest.approx(0.984, abs=0.002)
  finer = np.concatenate([np.linspace(1, 0.04, 1000), np.geomspace(0.04, 0.0005, 400)[1:], [0.0]])
  assert ratio(finer) == pytest.approx(1.0, abs=0.002)


@pytest.mark.parametrize("make_path", [m[1] for m in PATHS], ids=[m[0] for m in PATHS])
@pytest.mark.parametrize("make", [m[1] for m in SOLVERS], ids=[m[0] for m in SOLVERS])
def test_every_sampler_samples_a_gaussian_on_every_path(monkeypatch, make, make_path):
  """In 200 steps, but for the bias of steps of order 1."""
  path, sampler = make_path(), make()
  times = Karras()(200) if isinstance(path, Exploding) else grid(200)
  mean, deviation = ends(monkeypatch, sampler, path, times)
  assert abs(mean - MEAN) < 0.02 and abs(deviation / STD - 1) < 0.08


@pytest.mark.parametrize("steps", [1000, 100, 50])
def test_the_bias_of_ancestral_sampling_falls_with_its_steps(steps: int):
  """A Gaussian stays one: its mean and variance step by step, without random numbers."""
  path, times = Betas(), Strided()(steps)
  q = posterior(path, times[:-1], times[1:])
  gain = path.alpha(times) * STD**2 / (path.alpha(times) ** 2 * STD**2 + path.sigma(times) ** 2)
  for variance, ratios in ((q.small, (0.990, 0.924, 0.868)), (q.large, (1.002, 1.025, 1.051))):
    mean, spread = 0.0, 1.0
    for k in range(steps):
      data = MEAN + gain[k] * (mean - path.alpha(times[k]) * MEAN)
      mean = q.of_x[k] * mean + q.of_data[k] * data
      spread = (q.of_x[k] + q.of_data[k] * gain[k]) ** 2 * spread + (variance[k] if k < steps - 1 else 0)
    assert mean == pytest.approx(MEAN, abs=1e-5)
    assert np.sqrt(spread) / STD == pytest.approx(ratios[(1000, 100, 50).index(steps)], abs=6e-4)


def test_a_learned_variance_lies_between_its_bounds():
  process = Process(Betas(), "data", variance="learned")
  exact = denoise(Betas())
  runs = {}
  for raw in (-1.0, 0.0, 1.0):
    field = process.field(lambda x, tau, raw=raw: jnp.concatenate([exact(x, tau), 0 * x + raw], -1))
    runs[raw] = np.asarray(DDPM(9, "learned")(field, jnp.asarray(START), grid(9), keys=KEYS))
  bare = Process(Betas(), "data").field(exact)
  for raw, fixed in ((-1.0, DDPM(9, "small")), (1.0, DDPM(9, "large"))):
    assert np.abs(runs[raw] - fixed(bare, jnp.asarray(START), grid(9), keys=KEYS)).max() < 1e-5
  assert np.abs(runs[0.0] - runs[1.0]).max() > 1e-3
  with pytest.raises(UserError, match="process"):
    DDPM(9, "learned")(bare, jnp.asarray(START), grid(9), keys=KEYS)


def test_a_sampler_that_the_network_cannot_serve_is_one_line():
  for predict in ("data", "noise", "edm"):
    with pytest.raises(UserError, match="RK4 needs the velocity at tau = 0"):
      RK4(3)(Process(predict=predict).field(plain), jnp.asarray(START), grid(3))
  assert np.isfinite(RK4(3)(Process(predict="data").field(plain), jnp.asarray(START), grid(3)[:-1])).all()
  with pytest.raises(UserError, match=r"eta is in \[0, 1\]"):
    DDIM(3, 1.5)


def test_what_draws_noise_wants_keys():
  for sampler in (DDPM(3), DDIM(3, 1.0), DPMSolver2M(3, True), StochasticHeun(3), EulerMaruyama(3), Consistency(3)):
    with pytest.raises(UserError, match="needs a key"):
      sampler(Process().field(plain), jnp.asarray(START), grid(3))


def test_grids_and_times_of_a_chain():
  strided = Strided()(250, 3.0)
  assert strided.shape == (251,) and strided[0] == 1.0 and strided[-2] == 0.001 and strided[-1] == 0.0
  assert np.abs(strided * 1000 - np.round(strided * 1000)).max() < 1e-9 and (np.diff(strided) < 0).all()
  assert np.array_equal(Strided()(1000), np.arange(1000, -1, -1) / 1000)
  assert np.allclose(Even()(4), [1, 0.75, 0.5, 0.25, 0]) and np.array_equal(Even()(7, 2.0), grid(7, 2.0))
  with pytest.raises(UserError, match="strided"):
    Strided(10)(11)
  tau = np.asarray(Steps(10)(jax.random.key(0), 5000))
  assert np.array_equal(np.unique(np.round(tau * 10)), np.arange(1, 11)) and abs(tau.mean() - 0.55) < 0.02
