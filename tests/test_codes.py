"""Codes on several grids as one sequence: order, vocabularies, likelihood, cache, rate; and codes behind the prior."""

import dataclasses
import math
from pathlib import Path

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from latents.autoencoders import Autoencoder
from latents.backbones import Transformer
from latents.bottlenecks import EMAVQ, FSQ, Hierarchy, NestedDropout, VQReg
from latents.bottlenecks.nearest import nearest_code
from latents.decoders import ConvDecoder, IdentityDecoder
from latents.encoders import ConvEncoder, IdentityEncoder
from latents.errors import UserError
from latents.evaluate import CodeCapacity, Held, Layout
from latents.frozen import Frozen
from latents.priors import AutoregressivePrior
from latents.runs import run
from latents.types import Latent
from tests import micro
from tests.members.bottlenecks import hierarchy
from tests.test_nn import randomise

KEY = jax.random.key(0)
RNGS = {"params": KEY, "bottleneck": KEY, "prior": KEY, "dropout": KEY}
GRIDS, VOCABS = ((1, 2), (3,)), (2, 4)
MODEL = Transformer(VOCABS, 8, 1, 2, length=5, classes=2, multiple=8, layout=GRIDS)
BELOW = np.repeat(VOCABS, [2, 3])


def tokens(batch: int = 3) -> jax.Array:
  return jnp.asarray(np.random.default_rng(0).integers(0, BELOW, (batch, 5)), jnp.int32)


def drawn(model: nn.Module, *args, scale: float = 0.5):
  return randomise(jax.eval_shape(lambda: model.init(RNGS, *args)), scale)


# -- the bottleneck


class Rows(nn.Module):
  """[B,h,w,E] -> the means of blocks of two by two: a coarser map that can be told by hand."""

  stride = 2

  def __call__(self, h, *, train):
    return h.reshape(len(h), h.shape[1] // 2, 2, h.shape[2] // 2, 2, -1).mean((2, 4))


def test_codes_are_the_top_grid_in_raster_order_and_then_the_bottom_one():
  """With projections left out, the top's codes are those of the block means, the bottom's those of h and what it is
  told; each quantiser alone says which."""
  top, bottom = FSQ(levels=(5, 3), project=False), FSQ(levels=(3, 3, 3, 3), project=False)
  module = Hierarchy(Rows(), top, IdentityDecoder(), bottom, grid=(4, 4))
  with pytest.raises(UserError, match=r"grid of \(4, 4\)"):
    module.init(RNGS, jnp.zeros((1, 4, 2, 2)), train=True)
  told = Hierarchy(Rows(), top, Repeat(), bottom.clone(), grid=(4, 4))
  h = 2 * jax.random.normal(KEY, (2, 4, 4, 2))
  latent = told.apply({}, h, train=False)
  coarse = top.apply({}, Rows()(h, train=False), train=False)
  up = jnp.repeat(jnp.repeat(coarse.z, 2, 1), 2, 2)
  fine = bottom.apply({}, jnp.concatenate([up, h], -1), train=False)
  assert told.layout((4, 4)) == ((2, 2), (4, 4)) and told.vocab == (15, 81)
  np.testing.assert_array_equal(latent.codes[:, :4], coarse.codes.reshape(2, 4))
  np.testing.assert_array_equal(latent.codes[:, 4:], fine.codes.reshape(2, 16))
  np.testing.assert_array_equal(latent.z, jnp.concatenate([up, fine.z], -1))
  np.testing.assert_array_equal(told.apply({}, latent.codes, method="embed"), latent.z)
  alone = told.apply({}, latent, method="variants")["top alone"]
  np.testing.assert_array_equal(alone.z, jnp.concatenate([up, 0 * fine.z], -1))
  with pytest.raises(UserError, match="have 20 codes"):
    told.apply({}, latent.codes[:, :19], method="embed")


class Repeat(IdentityDecoder):
  """z [B,h,w,D] -> [B,2h,2w,D]."""

  def reconstruct(self, latent, *, train):
    return jnp.repeat(jnp.repeat(latent.z, 2, 1), 2, 2)


def test_three_grids_are_a_hierarchy_in_a_hierarchy():
  code = FSQ(levels=(3, 3))
  inner = Hierarchy(Rows(), code, Repeat(), code.clone(), grid=(4, 4))
  module = Hierarchy(Rows(), inner, Repeat(), EMAVQ(vocab=7, dim=2), grid=(8, 8))
  assert module.layout((8, 8)) == ((2, 2), (4, 4), (8, 8)) and module.vocab == (9, 9, 7)
  h = jax.random.normal(KEY, (2, 8, 8, 3))
  variables = module.init(RNGS, h, train=True)
  latent = module.apply(variables, h, train=False)
  assert latent.codes.shape == (2, 84) and latent.z.shape == (2, 8, 8, 6)
  np.testing.assert_array_equal(module.apply(variables, latent.codes, method="embed"), latent.z)


def test_a_training_pass_moves_both_codebooks():
  module, h = hierarchy(), jax.random.normal(KEY, (2, 4, 4, 6))
  variables = module.init(RNGS, h, train=True)
  latent, changed = module.apply(variables, h, train=True, rngs=RNGS, mutable=["codebook"])
  assert set(latent.terms) == {"commit"} and {"top_usage", "bottom_usage"} < set(latent.logs)
  assert np.any(changed["codebook"]["top"]["embedding"] != variables["codebook"]["top"]["embedding"])


# -- settle


def test_settle_puts_any_z_on_the_nearest_code_and_the_prior_sees_what_is_before_it():
  module = VQReg(EMAVQ(vocab=16, dim=3, project=False))
  model = Autoencoder(encoder=IdentityEncoder(), bottleneck=module, decoder=IdentityDecoder())
  x = jax.random.normal(KEY, (2, 4, 4, 3))
  variables = model.init(RNGS, x, train=True)
  book = np.asarray(variables["codebook"]["bottleneck"]["inner"]["embedding"])
  by_hand = book[((np.asarray(x)[..., None, :] - book) ** 2).sum(-1).argmin(-1)]
  arrays = {"variables": variables, "mean": np.full(3, 0.5, np.float32), "std": np.full(3, 2.0, np.float32)}
  frozen = Frozen(model)
  latent = frozen.encode(arrays, x, key=KEY, train=True)
  np.testing.assert_allclose(latent.z, (x - 0.5) / 2, rtol=1e-6)  # continuous, in units of its own statistics
  assert latent.codes is None and module.vocab is None
  np.testing.assert_array_equal(frozen.decode(arrays, Latent(z=(x - 0.5) / 2), key=KEY), by_hand)
  trained, decoded = model.apply(variables, x, train=True, rngs=RNGS)
  np.testing.assert_array_equal(decoded.x, by_hand)  # trained on codes, evaluated on codes
  np.testing.assert_array_equal(model.apply(variables, x, train=False)[1].x, by_hand)
  np.testing.assert_array_equal(
    jax.grad(lambda x: model.apply(variables, x, train=True)[1].x.sum())(x), jnp.ones_like(x)
  )
  assert set(trained.terms) == {"commit"}


def test_settle_embeds_codes_and_leaves_z_alone():
  module = NestedDropout(FSQ(levels=(5, 4), project=False))
  codes = jnp.arange(20)[None]
  np.testing.assert_array_equal(
    module.apply({}, Latent(codes=codes), method="settle").z, module.apply({}, codes, method="embed")
  )
  z = jnp.ones((1, 20, 2))
  assert module.apply({}, Latent(z=z, codes=codes), method="settle").z is z
  assert module.layout((20,)) == ((20,),)


# -- the transformer and the prior


def test_every_grid_has_its_own_vocabulary_positions_and_head():
  params = jax.eval_shape(lambda: MODEL.init(RNGS, tokens(), None))["params"]
  assert params["embed"]["embedding"].shape == (6, 8) and params["positions"].shape == (5, 8)
  assert params["levels"].shape == (2, 8) and "head" not in params
  assert [params[f"grid_heads_{i}"]["kernel"].shape for i in (0, 1)] == [(8, 2), (8, 4)]
  chances = jax.nn.softmax(MODEL.apply(drawn(MODEL, tokens(), None), tokens(), None))
  assert (np.asarray(chances[:, :2, 2:]) == 0).all() and (np.asarray(chances[:, 2:]) > 0).all()


def test_positions_of_a_grid_are_its_own_sines():
  model = Transformer(3, 8, 0, 1, length=6, position="sincos", layout=((1, 2), (2, 2)))
  bound = model.bind(drawn(model, jnp.zeros((1, 6), jnp.int32), None))
  places = np.asarray(bound._places())
  levels = np.asarray(bound.levels)
  np.testing.assert_allclose((places[:2] - levels[0]), (places[2:4] - levels[1]), atol=1e-6)  # the rows' first line


def test_the_likelihood_of_two_grids_by_hand():
  """No attention and no MLP: a transformer of depth 0, whose logits are head(norm(before + place))."""
  model = Transformer(VOCABS, 8, 0, 2, length=5, classes=2, layout=GRIDS)
  prior, codes, label = AutoregressivePrior(model), tokens(), jnp.array([0, 1, 1])
  latent = Latent(codes=codes)
  variables = randomise(
    jax.eval_shape(lambda: prior.init(RNGS, latent, {"label": label}, train=True, method="loss")), 0.5
  )
  p = jax.tree.map(lambda a: np.asarray(a, np.float64), variables["params"]["backbone"])
  total = 0.0
  for b in range(3):
    for i, grid in enumerate((0, 0, 1, 1, 1)):
      row = p["label"]["embedding"][label[b]]
      if i:
        row = p["embed"]["embedding"][int(codes[b, i - 1]) + (0, 0, 2, 2, 2)[i - 1]]
      h = row + p["positions"][i] + p["levels"][grid]
      h = h / np.sqrt((h**2).mean() + 1e-5) * next(iter(p["norm"].values()))
      logits = h @ p[f"grid_heads_{grid}"]["kernel"]
      total -= logits[int(codes[b, i])] - np.log(np.exp(logits).sum())
  nll = prior.apply(variables, latent, {"label": label}, train=False, method="loss")["nll"]
  np.testing.assert_allclose(nll, total / 15, rtol=1e-4)


def test_the_first_nll_is_the_mean_log_of_the_vocabularies():
  prior, latent = AutoregressivePrior(MODEL), Latent(codes=tokens())
  variables = prior.init(RNGS, latent, None, train=False, method="loss")
  nll = prior.apply(variables, latent, None, train=False, method="loss")["nll"]
  np.testing.assert_allclose(nll, (2 * math.log(2) + 3 * math.log(4)) / 5, rtol=1e-6)


@pytest.mark.parametrize("options", [{}, {"guidance": 5.0}])
def test_samples_never_leave_their_grids_vocabulary_and_use_all_of_it(options):
  prior = AutoregressivePrior(MODEL, top_k=3, temperature=2.0)
  variables = prior.init(RNGS, Latent(codes=tokens()), None, train=False, method="loss")
  variables = randomise(variables, 0.3)
  label = jnp.zeros(400, jnp.int32)
  codes = np.asarray(prior.apply(variables, {"label": label}, shape=(5,), method="sample", rngs=RNGS, **options).codes)
  assert codes.shape == (400, 5) and codes.min() == 0 and (codes < BELOW).all()
  assert [len(np.unique(codes[:, i])) for i in (0, 1)] == [2, 2] and len(np.unique(codes[:, 2:])) == 4


def test_layouts_that_do_not_fit_are_one_line():
  def refused(match: str, **fields):
    with pytest.raises(UserError, match=match):
      MODEL.clone(**fields).init(RNGS, tokens(), None)

  refused("vocabularies of \\(2, 4\\) for 1 grids", layout=())
  refused("are 6 tokens", layout=((1, 2), (2, 2)))
  refused("vocabularies of \\(2, 4, 8\\) for 2 grids", vocab=(2, 4, 8))


# -- rate


def test_the_rate_of_several_grids_is_the_sum_of_theirs():
  meter, layout = CodeCapacity(), Layout((4, 4, 1), Latent(codes=np.zeros(5, np.int32)), VOCABS, sizes=(2, 3))
  codes = jnp.array([[0, 0, 0, 1, 2], [1, 0, 3, 0, 1]], jnp.int32)

  def measured(codes, mask):
    held = Held(None, mask, grid=np.array([0, 0, 1, 1, 1]))
    return meter.result(meter.update(meter.init(layout), Latent(codes=codes), held), layout)

  found = measured(codes, jnp.ones(2, bool))
  assert found["rate_bits"] == pytest.approx(2 * 1 + 3 * 2)
  assert found["grid0_rate_bits"] == 2 and found["grid1_rate_bits"] == 6
  assert found["grid0_usage"] == 1 and found["grid1_usage"] == 1
  entropy = [-(0.75 * math.log2(0.75) + 0.25 * math.log2(0.25)), math.log2(6) - 2 * 2 / 6]
  assert found["entropy_bits"] == pytest.approx(sum(entropy))
  assert found["entropy_rate_bits"] == pytest.approx(2 * entropy[0] + 3 * entropy[1])
  assert measured(jnp.concatenate([codes, codes]), jnp.array([True, True, False, False])) == found


def test_an_autoencoder_with_two_grids_goes_round():
  part = {"ch": 8, "mult": (1, 1), "blocks": 1, "mid_attention": False}
  model = Autoencoder(
    encoder=ConvEncoder(**part, out=6), bottleneck=hierarchy(), decoder=ConvDecoder(**part, channels=1)
  )
  x = jax.random.uniform(KEY, (2, 8, 8, 1))
  variables = model.init(RNGS, x, train=True)
  latent = model.apply(variables, x, method="encode")
  out = model.apply(variables, latent, method="decodings")
  assert set(out) == {"", "top alone"}
  np.testing.assert_array_equal(model.apply(variables, Latent(codes=latent.codes), method="decode"), out[""])
  assert np.abs(out[""] - out["top alone"]).max() > 1e-4


def test_nearest_codes_are_what_snap_finds():
  module = EMAVQ(vocab=5, dim=2)
  variables = module.init(RNGS, jnp.zeros((1, 2, 2)), train=True)
  z, book = jax.random.normal(KEY, (3, 2)), variables["codebook"]["embedding"]
  np.testing.assert_array_equal(module.apply(variables, z, method="snap"), book[nearest_code(z, book)])


@pytest.mark.parametrize("known,words", [(8, "the prior knows 8 codes, but the bottleneck has 16"), (32, "knows 32")])
def test_a_prior_of_other_codes_is_refused_before_anything_is_trained(known: int, words: str, tmp_path: Path):
  made = micro.experiment(codes=True)
  prior = made.stage2.prior
  two = dataclasses.replace(made.stage2, prior=prior.clone(backbone=prior.backbone.clone(vocab=known)))
  with pytest.raises(UserError, match=words):
    run.run(dataclasses.replace(made, stage2=two), tmp_path, None, "test")
  assert not list(tmp_path.iterdir())
