"""MaskGIT's sampling against diffusers' AmusedScheduler: the same logits, the same draws, the same noise."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import torch
from diffusers import AmusedScheduler
from diffusers.schedulers import scheduling_amused

from latents.priors.masked import left_masked, remask

PLACES, VOCAB, BATCH = 40, 7, 3


def logits_of(tokens: np.ndarray) -> np.ndarray:
  """[B,N] -> [B,N,V]: any function of all tokens."""
  seen = np.cos(np.arange(PLACES)[:, None] * np.arange(1, VOCAB + 1))
  return (3 * np.sin(tokens.sum(1)[:, None, None] + seen * (1 + tokens[..., None]))).astype(np.float32)


@pytest.mark.parametrize("heat", [0.0, 4.5])
@pytest.mark.parametrize("steps", [1, 5, 11, 40])  # of 12, 40 cos(pi / 3) is 20, and in float32 less
def test_every_step_keeps_the_same_tokens(steps: int, heat: float, monkeypatch: pytest.MonkeyPatch):
  random = np.random.default_rng(steps)
  draws = random.integers(0, VOCAB, (steps, BATCH, PLACES))
  noise = random.gumbel(size=(steps, BATCH, PLACES)).astype(np.float32)
  now = 0
  monkeypatch.setattr(torch, "multinomial", lambda *_, **__: torch.from_numpy(draws[now].reshape(-1, 1)))
  monkeypatch.setattr(scheduling_amused, "gumbel_noise", lambda *_, **__: torch.from_numpy(noise[now]))
  scheduler = AmusedScheduler(mask_token_id=VOCAB)
  scheduler.set_timesteps(steps, temperature=(heat, 0))
  heats = scheduler.temperatures.numpy()  # from the first step on at its full heat: one step before ours
  theirs = torch.full((BATCH, PLACES), VOCAB)
  ours = jnp.full((BATCH, PLACES, 1), VOCAB)
  for now, (time, left) in enumerate(zip(scheduler.timesteps, left_masked(PLACES, steps), strict=True)):
    logits = logits_of(np.array(ours[..., 0]))
    theirs = scheduler.step(torch.from_numpy(logits), time, theirs).prev_sample
    drawn = jnp.asarray(draws[now])[..., None]
    log_p = jnp.take_along_axis(jax.nn.log_softmax(logits), drawn, -1)[..., 0]
    ours = remask(ours, drawn, log_p + heats[now] * noise[now], left, VOCAB)[0]
    assert np.array_equal(ours[..., 0], theirs.numpy())
  assert (np.asarray(ours) < VOCAB).all()
