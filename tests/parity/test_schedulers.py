"""Samplers against diffusers' schedulers, step for step with the same network and the same noise."""

import typing

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import torch
from diffusers import (
  DDIMScheduler,
  DDPMScheduler,
  DPMSolverMultistepScheduler,
  EDMEulerScheduler,
  EulerDiscreteScheduler,
  FlowMatchEulerDiscreteScheduler,
  FlowMatchHeunDiscreteScheduler,
  HeunDiscreteScheduler,
)

from latents.diffusion import (
  DDIM,
  DDPM,
  Betas,
  DPMSolver2M,
  Euler,
  Exploding,
  Heun,
  Karras,
  Process,
  Strided,
  grid,
)

START = np.random.default_rng(0).normal(size=(4, 6)).astype(np.float32)


def run(scheduler) -> np.ndarray:
  """The scheduler's own loop on v(x, tau) = sin(2 x) + tau x."""
  x = torch.from_numpy(START)
  for t in scheduler.timesteps:
    x = scheduler.step(torch.sin(2 * x) + t / 1000 * x, t, x).prev_sample
  return x.numpy()


def field(x, tau):
  return jnp.sin(2 * x) + tau * x


@pytest.mark.parametrize("shift", [1.0, 3.0])
@pytest.mark.parametrize("steps", [4, 25])
def test_euler(shift: float, steps: int):
  scheduler = FlowMatchEulerDiscreteScheduler(shift=shift)
  scheduler.set_timesteps(sigmas=np.linspace(1, 1 / steps, steps))
  times = grid(steps, shift)
  assert np.abs(scheduler.sigmas.numpy() - times).max() < 1e-6
  assert np.abs(Euler()(Process().field(field), jnp.asarray(START), times) - run(scheduler)).max() < 1e-5


@pytest.mark.parametrize("steps", [4, 25])
def test_heun(steps: int):
  """The reference repeats every time but the first and last, and ends with Euler's step, as we do."""
  scheduler = FlowMatchHeunDiscreteScheduler(shift=3.0)
  scheduler.set_timesteps(steps)
  times = np.concatenate([scheduler.sigmas.numpy()[:1], scheduler.sigmas.numpy()[1::2]])
  assert np.abs(Heun()(Process().field(field), jnp.asarray(START), times) - run(scheduler)).max() < 1e-5


# -- DDPM's path. In float64, with alphas of float64 in the reference, whose own are of float32; it counts steps from 0


@pytest.fixture
def wide():
  with jax.enable_x64(True):
    yield


CONFIGS = [  # of the chain and of what the network predicts: two that people use, and random ones
  (Betas(), "epsilon"),
  (Betas(0.00085, 0.012, rise="root"), "v_prediction"),
  (Betas(3.1e-4, 0.0129, rise="root"), "epsilon"),
  (Betas(2.3e-4, 0.0177), "sample"),
  (Betas(9.7e-5, 0.0126, rise="root"), "v_prediction"),
]  # fmt: skip
BY_CONFIG = pytest.mark.parametrize(("path", "predicted"), CONFIGS)
KINDS: dict[str, typing.Any] = {"epsilon": "noise", "sample": "data", "v_prediction": "velocity"}


def network(x, t, xp):
  """What is predicted at the reference's step t, for torch and jax; smooth, as two references round to float32."""
  return xp.sin(x) + t / 1000 * x


def scheduler_of(kind, path: Betas, predicted: str, **options):
  made = kind(
    beta_start=path.low,
    beta_end=path.high,
    beta_schedule={"linear": "linear", "root": "scaled_linear"}[path.rise],
    prediction_type=predicted,
    **options,
  )
  made.alphas_cumprod = torch.from_numpy(path.alpha(np.arange(1, 1001) / 1000) ** 2)
  made.alphas = made.alphas_cumprod / torch.cat([torch.ones(1), made.alphas_cumprod[:-1]])
  made.betas = 1 - made.alphas
  made.alpha_t, made.sigma_t = made.alphas_cumprod**0.5, (1 - made.alphas_cumprod) ** 0.5
  made.lambda_t = torch.log(made.alpha_t) - torch.log(made.sigma_t)
  return made


def field_of(path: Betas, predicted: str):
  """The same network on our path; the reference's v is the velocity by the angle, ours that by tau."""

  def out(x, tau):
    made = network(x, tau * 1000 - 1, jnp)
    return made * path.turn(tau) if predicted == "v_prediction" else made

  return Process(path, KINDS[predicted]).field(out)


def times_of(scheduler) -> np.ndarray:
  return np.append((scheduler.timesteps.numpy().astype(np.float64) + 1) / 1000, 0.0)


def keys_and_noise(monkeypatch, module: str) -> jax.Array:
  """Our keys, and the noise that they give handed to the reference, step by step."""
  keys = jax.random.split(jax.random.key(0), 4)

  def drawn():
    number = 0
    while True:
      noise = [jax.random.normal(jax.random.fold_in(key, number), (6,), jnp.float64) for key in keys]
      number += 1
      yield torch.from_numpy(np.array(jnp.stack(noise)))

  source = drawn()
  monkeypatch.setattr(f"diffusers.schedulers.scheduling_{module}.randn_tensor", lambda *_, **__: next(source))
  return keys


def theirs(scheduler, **options) -> np.ndarray:
  x = torch.from_numpy(START).double()
  for t in scheduler.timesteps:
    x = scheduler.step(network(x, t, torch), t, x, **options).prev_sample
  return x.numpy()


def same(ours, reference: np.ndarray) -> bool:
  return bool(np.abs(np.asarray(ours) - reference).max() < 1e-5 * max(1.0, np.abs(reference).max()))


@pytest.mark.usefixtures("wide")
@pytest.mark.parametrize("variance", ["small", "large"])
@pytest.mark.parametrize("steps", [10, 50])
@BY_CONFIG
def test_ddpm(monkeypatch, path, predicted, steps: int, variance: typing.Any):
  """Times end at the reference's step 0, where it draws none."""
  keys = keys_and_noise(monkeypatch, "ddpm")
  scheduler = scheduler_of(DDPMScheduler, path, predicted, variance_type=f"fixed_{variance}", clip_sample=False)
  times = Strided()(steps)
  scheduler.set_timesteps(timesteps=(np.round(times[:-1] * 1000) - 1).astype(int).tolist())
  ours = DDPM(steps, variance)(field_of(path, predicted), jnp.asarray(START, jnp.float64), times, keys=keys)
  assert same(ours, theirs(scheduler))


@pytest.mark.usefixtures("wide")
@pytest.mark.parametrize("eta", [0.0, 1.0, 0.3])
@pytest.mark.parametrize(("steps", "spacing"), [(10, "leading"), (50, "trailing")])
@BY_CONFIG
def test_ddim(monkeypatch, path, predicted, steps: int, spacing: str, eta: float):
  keys = keys_and_noise(monkeypatch, "ddim")
  scheduler = scheduler_of(DDIMScheduler, path, predicted, clip_sample=False, timestep_spacing=spacing)
  scheduler.set_timesteps(steps)
  times = times_of(scheduler)
  ours = DDIM(steps, eta)(field_of(path, predicted), jnp.asarray(START, jnp.float64), times, keys=keys)
  assert same(ours, theirs(scheduler, eta=eta))


@pytest.mark.usefixtures("wide")
@pytest.mark.parametrize("stochastic", [False, True])
@pytest.mark.parametrize(("steps", "spacing"), [(10, "trailing"), (20, "linspace"), (50, "leading")])
@BY_CONFIG
def test_dpm_solver(monkeypatch, path, predicted, steps: int, spacing: str, stochastic: bool):
  keys = keys_and_noise(monkeypatch, "dpmsolver_multistep")
  kind = "sde-dpmsolver++" if stochastic else "dpmsolver++"
  options = {"algorithm_type": kind, "solver_order": 2, "timestep_spacing": spacing}
  scheduler = scheduler_of(DPMSolverMultistepScheduler, path, predicted, **options)
  scheduler.set_timesteps(steps)
  times = times_of(scheduler)
  levels = path.sigma(times) / path.alpha(times)
  assert np.abs(scheduler.sigmas.numpy() / np.maximum(levels, 1e-9) - 1)[:-1].max() < 1e-6
  scheduler.sigmas = torch.from_numpy(levels)  # its own are rounded to float32
  sampler = DPMSolver2M(steps, stochastic)
  assert same(sampler(field_of(path, predicted), jnp.asarray(START, jnp.float64), times, keys=keys), theirs(scheduler))


# -- noise levels: the path x0 + sigma eps


def level_network(x, log_sigma, xp):
  return xp.sin(2 * x) + log_sigma / 10 * x


@pytest.mark.usefixtures("wide")
@pytest.mark.parametrize(("kind", "sampler"), [(EulerDiscreteScheduler, Euler()), (HeunDiscreteScheduler, Heun())])
@pytest.mark.parametrize("options", [{}, {"use_karras_sigmas": True}, {"timestep_spacing": "trailing"}], ids=str)
@pytest.mark.parametrize("path", [CONFIGS[0][0], CONFIGS[1][0], CONFIGS[3][0]])
def test_euler_and_heun_by_noise_level(kind, sampler, options, path):
  """The reference walks in y = x / alpha by sigma / alpha: our path `Exploding`, with its levels as times."""
  scheduler = scheduler_of(kind, path, "epsilon", **options)
  scheduler.set_timesteps(12)
  x = torch.from_numpy(START).double() * scheduler.init_noise_sigma
  start = x.numpy()
  for t in scheduler.timesteps:
    scaled = scheduler.scale_model_input(x, t)
    sigma = scheduler.sigmas[scheduler.step_index]
    x = scheduler.step(level_network(scaled, torch.log(sigma), torch), t, x).prev_sample
  levels = scheduler.sigmas.numpy().astype(np.float64)
  levels = levels if kind is EulerDiscreteScheduler else np.append(levels[:1], levels[1::2])
  most = float(levels[0])

  def network(x, tau):
    sigma = jnp.maximum(most * tau, 1e-9)
    return level_network(x / jnp.sqrt(sigma**2 + 1), jnp.log(sigma), jnp)

  field = Process(Exploding(most), "noise").field(network)
  assert same(sampler(field, jnp.asarray(start), levels / most), x.numpy())


@pytest.mark.usefixtures("wide")
@pytest.mark.parametrize(
  ("steps", "least", "most", "rho", "data_std"),
  [(18, 0.002, 80.0, 7.0, 0.5), (7, 0.013, 41.0, 5.0, 0.8), (31, 0.03, 12.0, 3.0, 1.0)],
)
def test_edm(steps: int, least: float, most: float, rho: float, data_std: float):
  """EDM's levels, its preconditioning, and Euler's step."""
  scheduler = EDMEulerScheduler(sigma_min=least, sigma_max=most, sigma_data=data_std, rho=rho)
  scheduler.set_timesteps(steps)
  x = torch.from_numpy(START).double() * most
  for t in scheduler.timesteps:
    x = scheduler.step(level_network(scheduler.scale_model_input(x, t), 4 * t, torch), t, x).prev_sample
  process = Process(Exploding(most), "edm", data_std=data_std)

  def network(x, tau):
    seen, told = process.inputs(x, tau)
    return level_network(seen, 4000 * told, jnp)

  times = Karras(rho, least, most)(steps)
  assert np.abs(times * most - scheduler.sigmas.numpy()).max() < 1e-5 * most
  assert same(Euler()(process.field(network), jnp.asarray(START, jnp.float64) * most, times), x.numpy())
