"""What people type in a notebook: it works, or it is one line."""

import warnings

import jax
import numpy as np
import pytest

import latents
from latents.errors import UserError
from latents.types import Latent
from latents.use.model import Model
from latents.use.sample import NOTHING, How
from tests.test_score import model


@pytest.fixture(scope="module")
def flow() -> Model:
  return model()


@pytest.fixture(scope="module")
def codes() -> Model:
  return model(codes=True)


@pytest.fixture(scope="module")
def x() -> np.ndarray:
  return np.random.default_rng(0).integers(0, 256, (2, 16, 16, 1), dtype=np.uint8)


def test_signals_are_taken_as_they_come(flow, x):
  expected = flow.reconstruct(x / np.float32(127.5) - 1)
  for same in (x, x / 127.5 - 1, (x / np.float32(127.5) - 1).tolist(), jax.numpy.asarray(x)):
    found = flow.reconstruct(same if not isinstance(same, list) else np.asarray(same))
    np.testing.assert_allclose(found, expected, atol=1e-5)
  with warnings.catch_warnings():
    warnings.simplefilter("error")
    flow.encode(np.full((1, 16, 16, 1), 200 / 127.5 - 1, np.float32))  # a bright picture is no [0,1]


WRONG = {
  "nan": (lambda x: np.full(x.shape, np.nan), "2 of 2 of the signals are not finite"),
  "0..255": (lambda x: x.astype(np.float32), "float in \\[-1,1\\]; .* lie outside, up to 255"),
  "integers": (lambda x: x.astype(np.int64), "encode takes float in \\[-1,1\\] or uint8, not int64"),
  "bool": (lambda x: x > 9, "not bool"),
  "words": (lambda x: ["a", "b"], "not one of shape"),
  "ragged": (lambda x: [[1.0], [1.0, 2.0]], "encode takes an array \\[B,16,16,1\\]"),
  "nothing": (lambda x: None, "not one of shape \\(\\)"),
  "empty": (lambda x: x[:0], "not one of shape \\(0, 16, 16, 1\\)"),
  "one": (lambda x: x[0], "of one example give x\\[None\\]"),
  "colour": (lambda x: np.repeat(x, 3, -1), "not one of shape \\(2, 16, 16, 3\\)"),
}


@pytest.mark.parametrize("case", WRONG)
def test_signals_that_cannot_be_meant_are_one_line(flow, x, case):
  make, line = WRONG[case]
  for call in (flow.encode, flow.reconstruct):
    with pytest.raises(UserError, match=line) as told:
      call(make(x))
    assert "\n" not in str(told.value)


def test_signals_in_0_1_are_warned_of(flow, x):
  with pytest.warns(UserWarning, match=r"lie in \[0,1\]"):
    flow.reconstruct(x / 255)


def test_arrays_are_decoded(flow, codes, x):
  for made in (flow, codes):
    latent = made.encode(x)
    array = latent.z if latent.codes is None else latent.codes
    np.testing.assert_allclose(made.decode(array), made.decode(latent), atol=1e-5)
    assert made.decode(array.tolist()).shape == x.shape
  z = flow.encode(x).z
  for wrong, line in (
    (z[0], r"decode takes z \[B,4,4,4\], not an array of shape \(4, 4, 4\)"),
    (z[..., :3], "decode takes z"),
    (np.full_like(z, np.inf), "2 of 2 of the latents are not finite"),
    (Latent(), "neither"),
    (np.zeros((2, 4, 4), int), "have codes, but those of this model have none"),
    ("z", "not <U1"),
    (None, "not object"),
  ):
    with pytest.raises(UserError, match=line):
      flow.decode(wrong)
  for wrong in (np.full((1, 4, 4), 16), np.full((1, 4, 4), -1)):
    with pytest.raises(UserError, match="codes are whole numbers from 0 to 15"):
      codes.decode(wrong)
  for wrong in ({"seed": -1}, {"seed": 2**32}, {"seed": 1.5}, {"steps": 0}):
    with pytest.raises(UserError):
      flow.decode(z, **wrong)


def test_labels_by_number_and_name(flow):
  assert flow.names == tuple("0123456789")
  assert flow.sampler.labels(3, None).tolist() == [3]
  assert flow.sampler.labels("3", 2).tolist() == [3, 3]
  assert flow.sampler.labels(["3", np.int64(4), None], None).tolist() == [3, 4, NOTHING]
  assert flow.sampler.labels(np.array([1, 2]), None).tolist() == [1, 2]
  for wrong, line in (
    ("dress", "no condition 'dress'"),
    ([2.5], "a label is 2.5: it must be a whole number"),
    ([True], "must be a whole number"),
    ([[1, 2]], "must be a whole number"),
    ([10], "label 10 is not one of 0 to 9"),
    ({"a": 1}, "must be a whole number"),
  ):
    with pytest.raises(UserError, match=line):
      flow.sample(labels=wrong)
  for wrong in ({"number": 2.5}, {"number": 0}, {"number": "3"}, {"seed": -1}, {"seed": 2**32}, {"seed": 2**70}):
    with pytest.raises(UserError):
      flow.sample(0, **wrong)
  for wrong in (float("nan"), float("inf"), "strong"):
    with pytest.raises(UserError, match="guidance is"):
      flow.sample(0, guidance=wrong)
  with pytest.raises(UserError, match="a sampler takes 1 to"):
    flow.sample(0, steps=0)


def test_samples_of_which_nothing_is_known(flow, codes):
  for made in (flow, codes):
    nothing = made.sample_latents([None, 3], seed=1, guidance=1.0)
    free = made.sample_latents([3, 3], seed=1, guidance=0.0)
    told = made.sample_latents([3, 3], seed=1, guidance=1.0)
    name = "codes" if made is codes else "z"
    a, b, c = (getattr(latent, name) for latent in (nothing, free, told))
    np.testing.assert_allclose(a[0], b[0], atol=1e-4)
    np.testing.assert_allclose(a[1], c[1], atol=1e-4)
  prior = flow.experiment.stage2.prior.clone(label_drop=0.0)
  sampler = flow.drawing(batch=3)
  sampler.prior = prior
  with pytest.raises(UserError, match="trained with a label always"):
    sampler.labels([None], None)


def test_latents_of_samples_are_those_of_the_samples(flow):
  latent = flow.sample_latents([1, 2, 3], seed=4)
  np.testing.assert_allclose(flow.decode(latent), flow.sample([1, 2, 3], seed=4), atol=1e-5)


def test_chunks_are_as_large_as_what_is_asked_for(flow, monkeypatch):
  sampler, seen = flow.drawing(batch=16), []
  asked = sampler._asked

  def watched(*given):
    for chunk, rows in asked(*given):
      seen.append(len(chunk[1]))
      yield chunk, rows

  monkeypatch.setattr(sampler, "_asked", watched)
  whole = sampler.signals(sampler.labels(list(range(10)), 16))
  for number, sizes in ((1, [1]), (3, [4]), (16, [16]), (17, [16, 1]), (22, [16, 8])):
    seen.clear()
    found = sampler.signals(sampler.labels(list(range(10)), number))
    assert seen == sizes and len(found) == number
    np.testing.assert_allclose(found[:16], whole[:number], atol=1e-4)


def test_steps_are_the_samplers(flow, codes):
  assert flow.drawing(how=How(steps=3)).prior.sampler.steps == 3
  assert not np.array_equal(flow.sample([1], steps=3), flow.sample([1], steps=1))
  with pytest.raises(UserError, match="has no steps to set"):
    codes.sample([1], steps=3)


def test_samples_that_are_no_numbers_are_refused():
  made = model()
  made.arrays["std"] = np.full_like(made.arrays["std"], np.nan)
  with pytest.raises(UserError, match="2 of 2 of the samples are not finite"):
    made.sample([1, 2])


def test_a_model_says_what_it_is(flow, codes):
  expected = "latents (4, 4, 4) (continuous), FlowPrior, labels 0, 1, 2, 3, 4, 5, 6, 7, 8, 9>"
  assert repr(flow) == f"<Model micro: image (16, 16, 1), {expected}"
  assert "(codes), AutoregressivePrior" in repr(codes)
  assert (flow.shape, flow.latent_shape) == ((16, 16, 1), (4, 4, 4))


def test_what_is_loaded_is_the_path_of_a_run(tmp_path, monkeypatch):
  monkeypatch.setenv("HOME", str(tmp_path))
  for wrong, line in ((3, "not 3"), (None, "not None"), ("~/none", f"{tmp_path}/none is not a folder")):
    with pytest.raises(UserError, match=line):
      latents.load(wrong)


def test_sizes_that_a_model_does_not_take_are_one_line(flow):
  wide = np.zeros((1, 32, 48, 1), np.float32)
  assert flow.reconstruct(wide).shape == wide.shape
  with pytest.raises(UserError, match="1x1 does not divide by the encoder's stride 4") as told:
    flow.reconstruct(np.zeros((1, 1, 1, 1), np.float32))
  assert "\n" not in str(told.value)


def test_ways_to_decode_keep_their_order(x, monkeypatch):
  made = model()
  ways = (("50 steps", None), ("", None), ("6 steps", None))
  monkeypatch.setattr(type(made.experiment.stage1.model.decoder), "variants", ways)
  assert list(made.decodings(x)) == [name for name, _ in ways]
