"""Samplers against diffusers' flow-matching schedulers, step for step with the same velocity."""

import jax.numpy as jnp
import numpy as np
import pytest
import torch
from diffusers import FlowMatchEulerDiscreteScheduler, FlowMatchHeunDiscreteScheduler

from latents.diffusion import Euler, Heun, Process, grid

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
