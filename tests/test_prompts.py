"""Samples that begin with given codes."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from latents.errors import UserError
from latents.media.drawing import save_png
from latents.priors import MaskedPrior
from latents.use import given, prompt
from latents.use.sample import How
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
  told = given.prompt([[1, 2, 3], [4, 5, 6]], 3, (2, 2), (7,))
  np.testing.assert_array_equal(told.reshape(3, 4), [[1, 2, 3, -1], [4, 5, 6, -1], [1, 2, 3, -1]])
  assert told.dtype == np.int32 and told.shape == (3, 2, 2)
  np.testing.assert_array_equal(given.prompt([[[-1, 2], [0, -1]]], 1, (2, 2), (7,))[0], [[-1, 2], [0, -1]])
  np.testing.assert_array_equal(given.prompt([[[3, 2]]], 1, (2, 2), (7,))[0], [[3, 2], [-1, -1]])  # a row
  for bad, line in (
    ([[0] * 5], "a prompt of 5 codes is longer than the 4 of a sample"),
    ([[7]], "codes of a prompt are 0 to 6, or -1: to be drawn; these lie from 7 to 7"),
    ([[-2, 3]], "these lie from -2 to 3"),
    ([[0.5]], "whole numbers, not float64"),
    ([1, 2], r"a prompt is codes \[P,n\] or \[P,2,2\], not an array of shape \(2,\)"),
    (np.zeros((0, 4), int), "not an array of shape"),
    (np.zeros((1, 2, 1), int), "not an array of shape"),
    ([[1], [1, 2]], "a prompt is an array of codes"),
  ):
    with pytest.raises(UserError, match=line) as told:
      given.prompt(bad, 2, (2, 2), (7,))
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
    (How(top_p=1.5), masked, r"prior.top_p is 1.5: it must be in \(0, 1\]"),
    (How(top_p=0.0), masked, r"prior.top_p is 0.0: it must be in \(0, 1\]"),
    (How(temperature=-0.1), masked, "prior.temperature is -0.1: it must be at least 0"),
    (How(temperature="warm"), chain, "temperature is 'warm': it must be a number"),
    (How(top_k=2.5), chain, "top_k is 2.5: it must be a whole number"),
    (How(top_k=3), flow, "FlowPrior has no top_k to set"),
    (How(steps=3), chain, "ChainPrior draws token after token: it has no steps to set"),
  ):
    with pytest.raises(UserError, match=line):
      how.of(prior)


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
  for wrong, line in (
    ({"prompt": codes.reshape(1, -1)}, "a prompt of 32 codes is longer than the 16 of a sample"),
    ({"prompt": [[16]]}, "codes of a prompt are 0 to 15"),
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
  codes = prompt.of_files(made, files, 0.5)
  whole = np.asarray(made.encode(np.full((1, 16, 16, 1), 40, np.uint8)).codes).reshape(1, -1)
  assert codes.shape == (2, whole.shape[1] // 2)
  np.testing.assert_array_equal(codes[0], whole[0, : codes.shape[1]])
  capsys.readouterr()
  for words, line in (
    (["--prompt", tmp_path / "none.png"], "none.png"),
    (["--prompt", files[0], "--keep", 1.0], "--keep 1.0: of a prompt a share is kept, above 0 and below 1"),
    (["--top-p", 1.5], "top_p is 1.5: it must be in (0, 1]"),
    (["--temperature", -1], "temperature is -1.0: it must be at least 0"),
    (["--prompt", files[0], "--tile", 16], "--prompt is encoded as it is"),
  ):
    assert call("sample", run, *words, "--out", tmp_path / "y.png") == 2
    err = capsys.readouterr().err.strip().splitlines()
    assert len(err) == 1 and line in err[0], err
    assert not (tmp_path / "y.png").exists()
