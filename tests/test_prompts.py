"""Samples that begin with given codes."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import soundfile

from latents.data import Audio
from latents.errors import UserError
from latents.media.drawing import save_png
from latents.priors import MaskedPrior
from latents.use import given, prompt
from latents.use.sample import NOTHING, How
from tests.members.priors import PRIORS
from tests.test_interop import call
from tests.test_masked import Oracle
from tests.test_nn import KEY, normal
from tests.test_priors import LABEL, latent_of, start
from tests.test_score import model

PROMPTED = [row for row in PRIORS if row[1]().prompts]
IN_RASTER = lambda prior: not isinstance(prior, MaskedPrior) and getattr(prior, "order", "raster") == "raster"


def test_every_prior_over_codes_takes_a_prompt():
  assert [row[0] for row in PRIORS if (row[3] is not None) != row[1]().prompts] == []


@pytest.mark.parametrize(("make", "shape", "vocab"), [row[1:] for row in PROMPTED], ids=[row[0] for row in PROMPTED])
def test_what_is_given_stays_and_the_rest_is_drawn_after_it(make, shape, vocab):
  prior, latent = make(), latent_of(shape, vocab)
  params, size = start(prior, latent, 0.2), int(np.prod(shape))
  scale = 2.0 if prior.classes else 1.0

  @jax.jit
  def run(prompt):
    rng = {"prior": KEY}
    return prior.apply(params, LABEL, shape=shape, guidance=scale, prompt=prompt, method="sample", rngs=rng).codes

  def begun(codes, n):
    return jnp.where(jnp.arange(size) < n, jnp.asarray(codes).reshape(4, size), -1).reshape(4, *shape)

  plain = prior.apply(params, LABEL, shape=shape, guidance=scale, method="sample", rngs={"prior": KEY}).codes
  free = run(begun(plain, 0))
  np.testing.assert_array_equal(free, plain)
  np.testing.assert_array_equal(run(latent.codes), latent.codes)
  n = size // 2
  half = np.asarray(run(begun(latent.codes, n))).reshape(4, size)
  np.testing.assert_array_equal(half[:, :n], np.asarray(latent.codes).reshape(4, size)[:, :n])
  assert half.min() >= 0 and (half.reshape(4, *shape) < np.asarray(vocab)).all()
  if IN_RASTER(prior):
    np.testing.assert_array_equal(run(begun(plain, n)), plain)  # as if it had been drawn
  assert run._cache_size() == 1  # prompts of any length are one program


@pytest.mark.parametrize("name", ["masked", "autoregressive-random", "autoregressive"])
def test_who_is_told_of_what_is_given_at_the_end(name):
  make, shape, vocab = next(row[1:] for row in PRIORS if row[0] == name)
  prior, latent = make().clone(temperature=0.0), latent_of(shape, vocab)
  if name == "masked":
    prior = prior.clone(choice=0.0)
  params = start(prior, latent, 0.5)
  run = jax.jit(lambda p: prior.apply(params, LABEL, shape=shape, prompt=p, method="sample", rngs={"prior": KEY}).codes)
  size = int(np.prod(shape))
  last = jnp.arange(size).reshape(shape) >= size // 2
  one, other = (np.asarray(run(jnp.where(last, codes, -1))) for codes in (latent.codes, (latent.codes + 1) % vocab))
  first = ~np.broadcast_to(last, one.shape)
  assert np.array_equal(one[first], other[first]) == (name == "autoregressive")


def test_prompts_as_they_are_typed():
  told = given.prompt([[1, 2, 3], [4, 5, 6]], 3, (2, 2), 7)
  np.testing.assert_array_equal(told.reshape(3, 4), [[1, 2, 3, -1], [4, 5, 6, -1], [1, 2, 3, -1]])
  assert told.dtype == np.int32 and told.shape == (3, 2, 2)
  np.testing.assert_array_equal(given.prompt([[[-1, 2], [0, -1]]], 1, (2, 2), 7)[0], [[-1, 2], [0, -1]])
  np.testing.assert_array_equal(given.prompt([[[3, 2]]], 1, (2, 2), 7)[0], [[3, 2], [-1, -1]])  # a row
  for bad, line in (
    ([[0] * 5], "a prompt of 5 codes is longer than the 4 of a sample"),
    ([[7]], r"a prompt has code 7 at place 0, where there are 0 to 6 \(or -1: to be drawn\)"),
    ([[3, -2]], "code -2 at place 1"),
    (np.array([[2**64 - 1]], np.uint64), "has code 18446744073709551615"),
    ([[1, 2], [3, 4]], r"not an array of shape \(2, 2\): codes\[None\] is one example, codes\[:, None\] 2 first rows"),
    ([[0.5]], "whole numbers, not float64"),
    ([1, 2], r"a prompt is codes \[P,n\] or \[P,2,2\], not an array of shape \(2,\)"),
    (np.zeros((0, 4), int), "not an array of shape"),
    (np.zeros((1, 2, 1), int), "not an array of shape"),
    ([[1], [1, 2]], "a prompt is an array of codes"),
  ):
    with pytest.raises(UserError, match=line) as told:
      given.prompt(bad, 2, (2, 2), 7)
    assert "\n" not in str(told.value)


def test_what_is_filled_in_is_of_the_conditional():
  """Of a joint of three tokens the second is given: the others are as often as they are then."""
  joint = np.exp(normal(27, seed=3) * 1.2)
  joint = np.asarray(joint / joint.sum(), np.float64)
  prior = MaskedPrior(Oracle(tuple(joint.tolist())), steps=3, choice=1e6)
  n = 20_000
  prompt = jnp.tile(jnp.array([-1, 2, -1]), (n, 1))
  codes = np.asarray(
    prior.apply({}, None, shape=(3,), count=n, prompt=prompt, method="sample", rngs={"prior": KEY}).codes
  )
  assert (codes[:, 1] == 2).all()
  expected = joint.reshape(3, 3, 3)[:, 2].reshape(-1)
  expected = n * expected / expected.sum()
  counts = np.bincount(codes @ [3, 0, 1], minlength=9)
  assert np.square(counts - expected).dot(1 / expected) < 26.2  # the 0.999 quantile at 8 degrees of freedom


def test_how_a_prior_draws():
  chain, flow, masked = (next(row[1]() for row in PRIORS if row[0] == name) for name in ("chain", "flow-edm", "masked"))
  made = How(temperature=0.5, top_k=3, top_p=0.9).of(chain)
  assert [(part.temperature, part.top_k, part.top_p) for part in made.priors] == [(0.5, 3, 0.9)] * 2
  assert How(steps=3).of(masked).steps == 3 and How(steps=3).of(flow).sampler.steps == 3
  assert How().of(chain) is chain
  for how, prior, line in (
    (How(top_k=2**31), chain, "at least 0"),
    (How(steps=10**9), flow, "a sampler takes 1 to 1,000,000 steps, not 1000000000"),
    (How(top_p=1.5), masked, r"prior.top_p is 1.5: it must be in \(0, 1\]"),
    (How(top_p=0.0), masked, r"prior.top_p is 0.0: it must be in \(0, 1\]"),
    (How(temperature=-0.1), masked, "prior.temperature is -0.1: it must be at least 0"),
    (How(top_k=3), flow, "FlowPrior has no top_k to set"),
    (How(steps=3), chain, "ChainPrior has no steps to set"),
  ):
    with pytest.raises(UserError, match=line):
      how.of(prior)
  assert How(temperature=np.float32(0.5)) == How(temperature=jnp.asarray(0.5)) == How(temperature=0.5)
  for wrong, line in (
    ({"temperature": "warm"}, "temperature is 'warm'"),
    ({"top_k": 2.5}, "top_k is 2.5: it must be a"),
  ):
    with pytest.raises(UserError, match=line):
      How(**wrong)


@pytest.fixture(scope="module")
def made():
  return model(codes=True)


def test_a_model_goes_on_from_a_prompt(made):
  x = np.random.default_rng(0).integers(0, 256, (2, 16, 16, 1), dtype=np.uint8)
  codes = made.encode(x).codes
  drawn = made.sample_latents([1, 2, 3], prompt=codes.reshape(2, -1)[:, :6], temperature=0.7, top_k=4).codes
  assert drawn.shape == (3, 4, 4)
  np.testing.assert_array_equal(drawn.reshape(3, -1)[:, :6], codes.reshape(2, -1)[[0, 1, 0], :6])
  assert made.sample([1], prompt=codes[:1]).shape == (1, 16, 16, 1)
  begun = made.sample_latents([1], prompt=codes.reshape(2, -1)[:, :6]).codes  # each prompt is used, told of no label
  free = made.sample_latents(prompt=codes.reshape(2, -1)[:, :6]).codes
  assert len(begun) == len(free) == 2 and np.array_equal(free.reshape(2, -1)[:, :6], codes.reshape(2, -1)[:, :6])
  assert made.sampler.begun(None, None, 3).tolist() == [NOTHING] * 3
  assert made.sampler.begun([4], None, 3).tolist() == [4] * 3 and made.sampler.begun([4, 5, 6], None, 2).tolist() == [
    4,
    5,
    6,
  ]
  for wrong, line in (
    ({"prompt": codes.reshape(1, -1)}, "a prompt of 32 codes is longer than the 16 of a sample"),
    ({"prompt": [[16]]}, "a prompt has code 16"),
    ({"topk": 3}, "'topk' says nothing of how to draw .did you mean top_k"),
    ({"temperature": "1"}, "temperature is '1': it must be a number"),
    ({"temperature": 10**400}, "it must be a number"),
    ({"steps": "8"}, "steps is '8': it must be a whole number"),
    ({"top_k": 10**400}, "top_k is"),
    ({"top_p": 0}, "top_p is 0"),
    ({"temperature": -1}, "temperature is -1"),
  ):
    with pytest.raises(UserError, match=line):
      made.sample([1], **wrong)


def test_what_has_no_codes_takes_no_prompt():
  with pytest.raises(UserError, match="a prompt is of codes, but FlowPrior draws vectors"):
    model().sample([1], prompt=[[1]])


def test_from_files_on_the_command_line(made, tmp_path, capsys, monkeypatch):
  run = tmp_path
  monkeypatch.setattr("latents.use.model.load", lambda *_, **__: made)
  for name, value in (("a", 40), ("b", 220)):
    save_png(np.full((24, 24, 1), value, np.uint8), tmp_path / f"{name}.png")
  files = [tmp_path / "a.png", tmp_path / "b.png"]
  assert call("sample", run, "--prompt", *files, "--keep", 0.5, "--labels", "1,2,3", "--out", tmp_path / "x.npz") == 0
  assert np.load(tmp_path / "x.npz")["x"].shape[0] == 3
  assert call("sample", run, "--prompt", *files, "--out", tmp_path / "free.npz") == 0
  assert np.load(tmp_path / "free.npz")["x"].shape[0] == 2
  codes = prompt.of_files(made, files, 0.5)
  whole = np.asarray(made.encode(np.full((1, 16, 16, 1), 40, np.uint8)).codes).reshape(1, -1)
  assert codes.shape == (2, 16) and (codes[:, 8:] == -1).all()
  np.testing.assert_array_equal(codes[0, :8], whole[0, :8])
  capsys.readouterr()
  for words, line in (
    (["--prompt", tmp_path / "none.png"], "none.png"),
    (["--prompt", files[0], "--keep", 1.0], "--keep 1.0: of a prompt a share is kept, above 0 and below 1"),
    (["--top-p", 1.5], "top_p is 1.5: it must be in (0, 1]"),
    (["--temperature", -1], "temperature is -1.0: it must be at least 0"),
    (["--prompt", files[0], "--tile", 16], "--prompt is encoded as it is"),
    (["--keep", 0.5], "--keep is of a prompt, and there is none"),
    (["--number", 10**30], "10,000,000 samples at most"),
    (["--top-k", 10**30], "top_k is"),
    (["--labels", "3", "--prompt", tmp_path], "not a readable image"),
  ):
    assert call("sample", run, *words, "--out", tmp_path / "y.png") == 2
    err = capsys.readouterr().err.strip().splitlines()
    assert len(err) == 1 and line in err[0], err
    assert not (tmp_path / "y.png").exists()


def test_a_prompt_is_not_lost(made, tmp_path, capsys, monkeypatch):
  monkeypatch.setattr("latents.use.model.load", lambda *_, **__: made)
  save_png(np.zeros((16, 16, 1), np.uint8), tmp_path / "a.png")
  before = (tmp_path / "a.png").read_bytes()
  assert call("sample", tmp_path, "--prompt", tmp_path / "a.png", "--out", tmp_path / "a.png", "--overwrite") == 2
  assert "would be lost" in capsys.readouterr().err and (tmp_path / "a.png").read_bytes() == before


def test_codes_that_are_drawn_together_are_given_together():
  assert given.prompt([[1, 2, 3, -1, -1, -1]], 1, (2, 3), 7, together=3).tolist() == [[[1, 2, 3], [-1, -1, -1]]]
  with pytest.raises(UserError, match="codes are drawn 3 at once: of a prompt all 3 of a place are given, or none"):
    given.prompt([[1, 2, 3, 4]], 1, (2, 3), 7, together=3)
  with pytest.raises(UserError, match="code 4 at place 1, where there are 0 to 3"):
    given.prompt([[4, 4]], 1, (3,), np.array([8, 4, 4]))


@pytest.mark.parametrize("temperature", [1e-45, 1e-20])
def test_a_temperature_near_zero_is_zero(temperature):
  make, shape, vocab = next(row[1:] for row in PRIORS if row[0] == "masked")
  latent = latent_of(shape, vocab)
  params = start(make(), latent, 0.5)
  cold, zero = (
    make()
    .clone(temperature=t, choice=0.0)
    .apply(params, LABEL, shape=shape, method="sample", rngs={"prior": KEY})
    .codes
    for t in (temperature, 0.0)
  )
  np.testing.assert_array_equal(cold, zero)


def test_of_a_short_recording_a_share_of_its_own_length_is_kept(tmp_path):
  wave = np.concatenate([np.full(400, 0.05), np.full(4000, 0.9)]).astype(np.float32)
  soundfile.write(tmp_path / "long.wav", wave, 8000)
  soundfile.write(tmp_path / "short.wav", wave[:200], 8000)
  source = Audio(path="", length=400, rate=8000, normalize="peak")
  x, share = prompt._signal(tmp_path / "long.wav", source)
  assert share == 1 and x.shape == (400, 1) and x.max() > 0.9  # as loud as an example of that length
  x, share = prompt._signal(tmp_path / "short.wav", source)
  assert share == 0.5 and x.shape == (400, 1) and (x[200:] == 0).all()


def test_a_random_order_begins_with_what_is_given():
  make, shape, _ = next(row[1:] for row in PRIORS if row[0] == "autoregressive-random")
  keys, size = jax.random.split(KEY, 6), int(np.prod(shape))
  prompt = jnp.where(jax.random.bernoulli(KEY, 0.5, (6, size)), 0, -1)
  places = np.asarray(make().bind({})._places(keys, prompt))
  assert (np.sort(places, 1) == np.arange(size)).all() and len({tuple(row) for row in places}) == 6
  last = np.take_along_axis(np.asarray(prompt), places, 1) < 0
  assert (np.diff(last.astype(int), axis=1) >= 0).all() and last.any() and not last.all()
