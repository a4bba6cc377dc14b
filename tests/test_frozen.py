"""What a prior sees of stage 1: latents in units of the measured statistics, and the way back."""

import dataclasses

import jax
import numpy as np
import pytest

from latents.autoencoders import Autoencoder
from latents.bottlenecks import KL, NoBottleneck
from latents.decoders import IdentityDecoder
from latents.encoders import IdentityEncoder
from latents.errors import UserError
from latents.frozen import Frozen, check_units
from latents.store import artefact
from latents.train import statistics
from latents.train.build_step import abstract_autoencoder, units
from latents.train.state import flatten
from latents.types import Latent
from latents.use.model import stage1_arrays
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


SIGNALS = (np.random.default_rng(1).normal(size=(24, 4, 5, 3)) * STD + 3 * MEAN).astype(np.float32)


@pytest.mark.parametrize(("normalise", "axes"), [("channel", (0, 1, 2)), ("element", 0), ("scalar", (0, 1, 2, 3))])
def test_every_unit_gives_mean_0_and_deviation_1(normalise, axes):
  batches = iter([{"x": SIGNALS[i : i + 8]} for i in (0, 8, 16)])
  found = statistics.measure(identity(), {}, batches, 8, micro.one_device(), normalise)
  assert np.shape(found["mean"]) == np.shape(found["std"]) == units((4, 5, 3), normalise) == SIGNALS.mean(axes).shape
  arrays = {"variables": {}, **{k: np.asarray(found[k], np.float32) for k in ("mean", "std")}}
  half = jax.numpy.asarray(SIGNALS, "bfloat16")
  latent = identity().encode(arrays, SIGNALS, key=KEY, train=True)
  np.testing.assert_allclose(np.asarray(latent.z, np.float64).mean(axes), 0, atol=1e-4)
  np.testing.assert_allclose(np.asarray(latent.z, np.float64).std(axes), 1, rtol=1e-3)
  assert identity().encode(arrays, half, key=KEY, train=True).z.dtype == np.float32
  np.testing.assert_allclose(identity().decode(arrays, latent, key=KEY), SIGNALS, atol=1e-4)


def test_no_unit_is_the_model_s_own():
  found = statistics.measure(identity(), {}, iter([]), 8, micro.one_device(), "none")  # no data are read
  arrays = {"variables": {}, **{k: np.asarray(found[k], np.float32) for k in ("mean", "std")}}
  np.testing.assert_array_equal(identity().encode(arrays, SIGNALS, key=KEY, train=False).z, SIGNALS)


def test_statistics_of_elements_refuse_another_grid_and_those_of_channels_do_not():
  arrays = {"variables": {}, "mean": np.zeros((4, 5, 3), np.float32), "std": np.ones((4, 5, 3), np.float32)}
  with pytest.raises(UserError, match=r"element by element on \(4, 5, 3\), so \(8, 5, 3\) has no statistics"):
    identity().encode(arrays, np.zeros((2, 8, 5, 3), np.float32), key=KEY, train=False)
  with pytest.raises(UserError, match="element by element"):
    identity().decode(arrays, Latent(z=np.zeros((2, 1, 1, 3), np.float32)), key=KEY)
  with pytest.raises(UserError, match="of 3 channels, but the latents have 2"):
    check_units((3,), (4, 4, 2))
  for shape in ((3,), ()):
    check_units(shape, (7, 9, 3))


@pytest.mark.parametrize("normalise", ["channel", "element", "scalar", "none"])
def test_a_stage_s_unit_is_what_its_artefact_is_checked_against(normalise, tmp_path):
  made = micro.experiment(gan=False)
  made = dataclasses.replace(made, stage1=dataclasses.replace(made.stage1, normalise=normalise))
  shapes = abstract_autoencoder(made)
  assert shapes["mean"].shape == units((4, 4, 4), normalise)
  weights = {n: np.zeros(a.shape, a.dtype) for n, a in flatten(shapes["variables"]).items()}
  for shape in (shapes["mean"].shape, (5,)):
    said = {"mean": np.zeros(shape).tolist(), "std": np.ones(shape).tolist()}
    one = artefact.write(tmp_path / str(len(shape)), weights, {"address": "a", "statistics": said})
    if shape == (5,):
      with pytest.raises(UserError, match=r"statistics of \(5,\)"):
        stage1_arrays(made, one, "here")
    else:
      assert stage1_arrays(made, artefact.read(tmp_path / str(len(shape))), "here")["std"].shape == shape
