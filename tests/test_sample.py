"""Chunks of samples: every draw and every decoding has noise of its own, a function of the seed."""

import time

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from latents import media
from latents.errors import UserError
from latents.frozen import Frozen
from latents.train.build_step import InMesh
from latents.types import Latent
from latents.use.sample import Sampler
from tests import micro


@pytest.fixture
def noisy():
  """A sampler whose prior and decoder give nothing but their noise: [label, a number, a number]."""
  made = Sampler.__new__(Sampler)
  made.mesh, made.arrays, made.variables, made.chunk, made.classes = micro.one_device(), None, None, 4, 3
  made.fitted, made._spent, made._ready = None, {}, set()

  made.frozen = Frozen(micro.experiment().stage1.model)

  def draw(_, labels, key, guidance, prompt):
    return Latent(z=jnp.stack([labels.astype(jnp.float32) / 10, jax.random.uniform(key, labels.shape)], -1))

  def decode(_, latent, key):
    return jnp.concatenate([latent.z, jax.random.uniform(key, (len(latent.z), 1))], -1)

  made._draw, made._decode = InMesh(made.mesh, jax.jit(draw, static_argnums=3)), InMesh(made.mesh, jax.jit(decode))
  made.kind = media.kind("array")
  return made


def test_no_noise_comes_twice_and_the_seed_is_all_it_depends_on(noisy):
  labels = np.arange(10, dtype=np.int32) % 3
  found = noisy.signals(labels, seed=5)
  np.testing.assert_allclose(found[:, 0], labels / 10, rtol=1e-6)
  assert found.shape == (10, 3) and len(np.unique(found[:, 1:])) == 20
  np.testing.assert_array_equal(noisy.signals(labels[:6], seed=5), found[:6])  # not on how many are asked for
  assert not np.isin(noisy.signals(labels, seed=6)[:, 1:], found[:, 1:]).any()


def test_labels_are_taken_in_turn(noisy):
  assert noisy.labels(None, None).tolist() == [0, 1, 2]
  assert noisy.labels(None, 5).tolist() == [0, 1, 2, 0, 1]
  assert noisy.labels([2, 0], 3).tolist() == [2, 0, 2]
  for wrong, number in (([3], None), ([-1], 2), ([], None), (None, 0)):
    with pytest.raises(UserError):
      noisy.labels(wrong, number)


def test_seconds_are_without_the_compilers(noisy):
  assert noisy.seconds() is None
  slow = lambda _, labels, key, guidance, prompt: (time.sleep(0.5), noisy_draw(labels))[1]  # at the trace, once
  noisy_draw = lambda labels: Latent(z=jnp.stack([labels * 1.0, labels * 1.0], -1))
  noisy._draw = InMesh(noisy.mesh, jax.jit(slow, static_argnums=3))
  noisy.signals(np.zeros(4, np.int32))
  assert 0 < noisy.seconds() < 0.1
