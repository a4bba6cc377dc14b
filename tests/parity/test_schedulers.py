"""Samplers against diffusers' schedulers, step for step with the same network and the same noise."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import torch
from diffusers import (
  DDPMScheduler,
  DPMSolverMultistepScheduler,
  FlowMatchEulerDiscreteScheduler,
  FlowMatchHeunDiscreteScheduler,
)

from latents.diffusion import DDPM, Betas, DPMSolver2M, Euler, Even, Heun, Process, Strided, grid

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


# -- DDPM's path: the network gives the noise; diffusers counts steps from 0


def network(x, t, xp):
  """The noise at diffusers' step t, for torch and jax."""
  return xp.sin(2 * x) + t / 1000 * x


FIELD = Process(Betas(), "noise").field(lambda x, tau: network(x, tau * 1000 - 1, jnp))
COMMON = {"beta_start": 1e-4, "beta_end": 0.02, "beta_schedule": "linear", "timestep_spacing": "trailing"}


@pytest.mark.parametrize("variance", ["small", "large"])
@pytest.mark.parametrize("steps", [10, 50])
def test_ddpm(monkeypatch, steps: int, variance: str):
  """The reference is given the noise that we draw, and times that end at its step 0, where it draws none."""
  keys = jax.random.split(jax.random.key(0), 4)
  draw = lambda k: jnp.stack([jax.random.normal(jax.random.fold_in(key, k), (6,)) for key in keys])
  drawn = iter(torch.from_numpy(np.array(draw(k))) for k in range(steps))
  monkeypatch.setattr("diffusers.schedulers.scheduling_ddpm.randn_tensor", lambda *_, **__: next(drawn))
  scheduler = DDPMScheduler(variance_type=f"fixed_{variance}", clip_sample=False, **COMMON)
  times = Strided()(steps)
  scheduler.set_timesteps(timesteps=(np.round(times[:-1] * 1000) - 1).astype(int).tolist())
  x = torch.from_numpy(START)
  for t in scheduler.timesteps:
    x = scheduler.step(network(x, t, torch), t, x).prev_sample
  ours = DDPM(steps, variance)(FIELD, jnp.asarray(START), times, keys=keys)
  assert np.abs(ours - x.numpy()).max() < 1e-4 * np.abs(x.numpy()).max()


@pytest.mark.parametrize("steps", [10, 20, 50])
def test_dpm_solver(steps: int):
  scheduler = DPMSolverMultistepScheduler(algorithm_type="dpmsolver++", solver_order=2, **COMMON)
  scheduler.set_timesteps(steps)
  times = Even()(steps)
  assert np.array_equal(scheduler.timesteps.numpy() + 1, np.round(times[:-1] * 1000))
  x = torch.from_numpy(START)
  for t in scheduler.timesteps:
    x = scheduler.step(network(x, t, torch), t, x).prev_sample
  ours = DPMSolver2M(steps)(FIELD, jnp.asarray(START), times)
  assert np.abs(ours - x.numpy()).max() < 1e-4 * np.abs(x.numpy()).max()
