"""What a prior sees of stage 1: latents in units of the measured statistics, and the way back."""

import jax
import numpy as np
import pytest

from latents.autoencoders import Autoencoder
from latents.bottlenecks import KL, NoBottleneck
from latents.decoders import IdentityDecoder
from latents.encoders import IdentityEncoder
from latents.frozen import Frozen
from latents.train import statistics
from tests import micro

MEAN, STD = np.array([1.0, -2.0, 0.5], np.float32), np.array([0.5, 2.0, 4.0], np.float32)
KEY = jax.random.key(0)


def identity() -> Frozen:
  return Frozen(Autoencoder(encoder=IdentityEncoder(), bottleneck=NoBottleneck(), decoder=IdentityDecoder()))


@pytest.mark.parametrize("train", [False, True])
def test_latents_are_in_units_of_the_statistics_and_decoding_undoes_it(train):
  frozen, arrays = identity(), {"variables": {}, "mean": MEAN, "std": STD}
  x = np.random.default_rng(0).uniform(-1, 1, (4, 5, 5, 3)).astype(np.float32)
  latent = frozen.encode(arrays, x, key=KEY, train=train)
  np.testing.assert_allclose(latent.z, (x - MEAN) / STD, rtol=1e-6, atol=1e-6)
  np.testing.assert_allclose(frozen.recall(arrays, x, key=KEY, train=train).z, latent.z, rtol=1e-6)  # from a cache
  np.testing.assert_allclose(frozen.decode(arrays, latent, key=KEY), x, atol=1e-6)


def test_statistics_are_those_of_all_examples_a_channel():
  x = (np.random.default_rng(0).normal(size=(24, 5, 5, 3)) * STD + 100 * MEAN).astype(np.float32)
  batches = iter([{"x": x[i : i + 8]} for i in (0, 8, 16)])
  found = statistics.measure(identity(), {}, batches, 8, micro.one_device())
  every = x.reshape(-1, 3).astype(np.float64)
  np.testing.assert_allclose(found["mean"], every.mean(0), rtol=1e-6)
  np.testing.assert_allclose(found["std"], every.std(0), rtol=1e-4)  # far from zero: sums about the first mean
  assert found["count"] == 24 * 25
  with pytest.raises(ValueError, match="no batches"):
    statistics.measure(identity(), {}, iter([]), 8, micro.one_device())


def test_statistics_are_of_draws_of_the_posterior():
  """A KL bottleneck whose mean is 3 and deviation 0.5 everywhere has these statistics, and not deviation 0."""
  model = Autoencoder(encoder=IdentityEncoder(), bottleneck=KL(dim=2), decoder=IdentityDecoder())
  bias = np.array([3, 3, 2 * np.log(0.5), 2 * np.log(0.5)], np.float32)
  variables = {"params": {"bottleneck": {"project": {"kernel": np.zeros((3, 4), np.float32), "bias": bias}}}}
  batches = iter([{"x": np.zeros((8, 16, 16, 3), np.float32)}] * 4)
  found = statistics.measure(Frozen(model), variables, batches, 8, micro.one_device())
  error = 0.5 / np.sqrt(4 * 8 * 256)  # of the mean; of the deviation it is smaller by sqrt(2)
  np.testing.assert_allclose(found["mean"], 3, atol=5 * error)
  np.testing.assert_allclose(found["std"], 0.5, atol=5 * error)
