"""What priors are told: conditioners, dropping, guidance, texts with a mask; and what is said where something lacks."""

import dataclasses
import hashlib

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import latents
from latents.autoencoders import Autoencoder
from latents.backbones import DiT, UNet
from latents.bottlenecks import NoBottleneck
from latents.conditioners import Conditioner, Labels, Text
from latents.conditioners.text import embedded
from latents.data import Unnamed
from latents.declare import Experiment, addresses, dumps, loads
from latents.decoders import Categorical, ConvDecoder, Equivariant, FlowDecoder, Gained
from latents.diffusion import Euler
from latents.encoders import Downsample
from latents.errors import UserError
from latents.losses import Weight
from latents.nn.condition import TextTokens, labels
from latents.priors import FlowPrior
from latents.priors.base import doubled, drop, without
from latents.runs import rehearsal, run
from latents.types import Latent
from tests import micro
from tests.members.conditioners import CONDITIONERS
from tests.test_nn import normal
from tests.test_priors import randomise

KEY = jax.random.key(0)
WORDS = ("zero", "one", "two", "three")
NUMBERS = jnp.array([0, 1, 2, 1])


def text(**fields) -> Text:
  return Text(**{"texts": WORDS, "length": 5, "size": 6, **fields})


@pytest.mark.parametrize("make", [make for _, make in CONDITIONERS], ids=[name for name, _ in CONDITIONERS])
def test_every_conditioner_gives_what_it_says_for_each_example(make):
  made = make()
  batch = {"x": jnp.zeros((4, 2)), "label": NUMBERS}
  found = jax.jit(made)(batch)
  assert set(found) == set(made.gives) and all(len(a) == 4 for a in found.values())
  for name, a in made.asked(NUMBERS).items():
    np.testing.assert_array_equal(a, found[name])  # asked for by number: as in training
  assert made({"x": jnp.zeros((4, 2))}) is None  # a decoder can be told nothing of what has no label
  assert made.count(3) == 3 and made.number(made.words(("a", "b", "c"))[1], ("a", "b", "c")) == 1
  with pytest.raises(UserError, match="no condition 'zerro'"):
    made.number("zerro", ("a", "b", "c"))


def test_labels_dropped_are_the_null_and_the_draws_are_those_of_before():
  cond = {"label": jnp.arange(1000) % 3}
  gone = jax.random.bernoulli(KEY, 0.3, (1000,))
  np.testing.assert_array_equal(labels(drop(KEY, cond, 0.3), 3, 1000), jnp.where(gone, 3, cond["label"]))
  assert (labels(None, 3, 5) == 3).all() and (labels(without(cond, 1000), 3, 1000) == 3).all()
  both = doubled({"label": NUMBERS}, 4)
  np.testing.assert_array_equal(labels(both, 3, 8), [3, 3, 3, 3, 0, 1, 2, 1])  # nothing known first
  assert doubled(None, 4) is None
  with pytest.raises(UserError, match="conditioned on 'label', but the condition has text, text_mask"):
    labels(text()({"label": NUMBERS}), 3, 4)


def test_texts_need_labels_to_choose_by():
  base = micro.experiment(gan=False).stage2
  assert base is not None
  prior = FlowPrior(backbone=DiT(1, 16, 2, text=(5, 6)))
  for texts, data, words in (
    (WORDS, Unnamed(path="", size=16, channels=1), "the data have no labels"),
    ((), base.data, "there is nothing to tell"),
  ):
    stage = dataclasses.replace(base, data=data, prior=prior.clone(), conditioner=text(texts=texts))
    with pytest.raises(UserError, match=words):
      rehearsal.check_told(stage)
    rehearsal.check_told(dataclasses.replace(stage, steps=0))  # trained elsewhere


def test_what_is_trained_elsewhere_is_asked_by_number():
  assert Labels(classes=7).count(0) == 7 == Labels(classes=7).count(3) and Labels().count(3) == 3
  none = text(texts=())
  assert none.count(0) == 0 and none.count(3) == 0
  told = none.asked(jnp.array([0, 0]))
  assert told is not None and told["text"].shape == (2, 5, 6) and not told["text_mask"].any()


def test_texts_are_their_characters_in_order():
  found, mask = embedded(("ab", "ba", "aab"), 4, 6)
  assert mask.tolist() == [[1, 1, 0, 0], [1, 1, 0, 0], [1, 1, 1, 0]] and not found[~mask].any()
  np.testing.assert_array_equal(found[0, 0, :3], found[1, 1, :3])  # one letter, two places
  assert not np.allclose(found[0, 0], found[1, 1]) and not np.allclose(found[0, 0, :3], found[0, 1, :3])
  np.testing.assert_array_equal(found, embedded(("ab", "ba", "aab"), 4, 6)[0])


def test_embeddings_of_a_file(tmp_path):
  table, mask = embedded(WORDS, 5, 6)
  file = tmp_path / "e.npz"
  np.savez(file, text=2 * table, text_mask=mask)
  sha256 = hashlib.sha256(file.read_bytes()).hexdigest()
  made = text(path=str(file), sha256=sha256)
  np.testing.assert_array_equal(made.asked(NUMBERS)["text"], 2 * table[NUMBERS])
  for change, words in (
    ({"size": 7}, "wanted are text"),
    ({"sha256": "0" * 64}, "is not the declared file"),
    ({"sha256": ""}, f"its sha256 is {sha256}"),  # or files that differ would share an address
    ({"path": str(tmp_path / "f.npz")}, "cannot be read"),
  ):
    with pytest.raises(UserError, match=words):
      dataclasses.replace(made, **change).asked(NUMBERS)
  np.savez(tmp_path / "n.npz", text=table, text_mask=mask, null=table[3])
  more = text(path=str(tmp_path / "n.npz"), sha256=hashlib.sha256((tmp_path / "n.npz").read_bytes()).hexdigest())
  np.testing.assert_array_equal(more.asked(NUMBERS)["text_null"], np.stack([table[3]] * 4))
  made = micro.experiment(gan=False)
  at = lambda **fields: addresses(
    dataclasses.replace(made, stage2=dataclasses.replace(made.stage2, conditioner=text(**fields)))
  )
  moved, other = at(path="/elsewhere", sha256=sha256), at(path=str(file), sha256="0" * 64)
  assert at(path=str(file), sha256=sha256) == moved != other


def test_dropped_texts_are_one_learned_token_and_the_mask_is_kept():
  cond = text()({"label": NUMBERS})
  module = TextTokens(width=8, length=5)
  variables = module.init(KEY, cond, 6, 4)
  tokens, mask = module.apply(variables, {**cond, "drop": jnp.array([True, False, False, True])}, 6, 4)
  plain, seen = module.apply(variables, cond, 6, 4)
  nothing, _ = module.apply(variables, None, 6, 4)
  np.testing.assert_array_equal(tokens[0], nothing[0])
  np.testing.assert_array_equal(tokens[1], plain[1])
  assert mask[0].all() and mask[3].all() and np.array_equal(mask[1:3], seen[1:3]) and not seen.all()
  assert jax.tree.map(jnp.shape, module.init(KEY, None, 6, 4)) == jax.tree.map(jnp.shape, variables)
  with pytest.raises(UserError, match=r"texts of \(5, 6\), not \(4, 6\)"):
    module.apply(variables, {**cond, "text": cond["text"][:, :4]}, 6, 4)


def told(classes: int = 0) -> tuple:
  """(a prior that reads texts, its variables, an example's shape)."""
  prior = FlowPrior(DiT(depth=2, width=16, heads=2, patch=1, classes=classes, text=(5, 6)), sampler=Euler(3))
  latent, cond = Latent(z=normal(4, 2, 2, 3)), text()({"label": NUMBERS}) | {"label": NUMBERS}
  rngs = {"params": KEY, "prior": KEY}
  shapes = jax.eval_shape(lambda: prior.init(rngs, latent, cond, train=True, method="loss"))
  return prior, randomise(shapes, 0.3), (2, 2, 3)


def test_what_a_mask_hides_changes_nothing():
  prior, variables, shape = told()
  cond = text()({"label": NUMBERS})
  noisy = {**cond, "text": jnp.where(cond["text_mask"][..., None], cond["text"], 9.0)}
  run = lambda c: prior.backbone.apply({"params": variables["params"]["backbone"]}, normal(4, *shape), jnp.ones(4), c)
  np.testing.assert_allclose(run(cond), run(noisy), atol=1e-5)
  other = {**cond, "text": cond["text"].at[:, 0].add(1.0)}
  assert np.abs(run(cond) - run(other)).max() > 1e-3


def test_guidance_on_texts_is_two_passes_and_a_split_batch_draws_the_same():
  prior, variables, shape = told(classes=3)
  cond = text()({"label": NUMBERS}) | {"label": NUMBERS}
  draw = lambda c, s: prior.apply(variables, c, shape=shape, guidance=s, method="sample", rngs={"prior": KEY}).z
  network = {"params": variables["params"]["backbone"]}
  x = jax.vmap(lambda k: jax.random.normal(k, shape))(
    jax.vmap(
      lambda i: jax.random.fold_in(prior.apply({}, method=lambda m: m.make_rng("prior"), rngs={"prior": KEY}), i)
    )(jnp.arange(4))
  )
  for now, then in ((1.0, 2 / 3), (2 / 3, 1 / 3), (1 / 3, 0.0)):
    t = jnp.full(4, now)
    u, c = (prior.backbone.apply(network, x, t, given) for given in (None, cond))
    x = x + (then - now) * (u + 2.5 * (c - u))
  np.testing.assert_allclose(draw(cond, 2.5), x, rtol=1e-4, atol=1e-4)
  halves = draw({name: a[:2] for name, a in cond.items()}, 2.5)
  np.testing.assert_allclose(halves, draw(cond, 2.5)[:2], rtol=1e-5, atol=1e-5)


def test_a_conditioner_is_declared_and_the_usual_one_stands_nowhere():
  made = micro.experiment(gan=False)
  assert '"conditioner"' not in dumps(made) and made.stage2.conditioner == Labels()
  two = dataclasses.replace(made.stage2, conditioner=text())
  other = dataclasses.replace(made, stage2=two)
  assert loads(dumps(other), "x") == other and addresses(other)[1] != addresses(made)[1]


def test_what_a_prior_is_not_given_is_said_before_anything_is_trained(tmp_path):
  made = micro.experiment(gan=False)
  backbone = made.stage2.prior.backbone.clone(classes=0, text=(5, 6))
  read = dataclasses.replace(made.stage2, prior=made.stage2.prior.clone(backbone=backbone))
  for two, words in (
    (read, "the prior reads 'text', but Labels gives label"),
    (dataclasses.replace(made.stage2, conditioner=text()), "the prior reads 'label', but Text gives text, text_mask"),
    (dataclasses.replace(read, conditioner=text()), "4 texts for 10 labels"),
  ):
    with pytest.raises(UserError, match=words):
      run.run(dataclasses.replace(made, stage2=two), tmp_path, None, "test")
  assert not list(tmp_path.iterdir())


# -- decoders that are told


def super_resolution(classes: int) -> Autoencoder:
  """4x4 means of 8x8 pictures, and a decoder that draws the pictures, told their label."""
  decoder = FlowDecoder(backbone=UNet(ch=8, mult=(1,), blocks=1, classes=classes, out=1), stride=2, channels=1)
  return Autoencoder(encoder=Downsample(factor=2), bottleneck=NoBottleneck(), decoder=decoder)


def test_down_sampling_is_the_mean_and_has_no_parameters():
  x = normal(2, 8, 8, 3)
  module = Downsample(factor=4)
  assert not module.init(KEY, x, train=True)
  y = module.apply({}, x, train=False)
  np.testing.assert_allclose(y, x.reshape(2, 2, 4, 2, 4, 3).mean((2, 4)), atol=1e-6)
  with pytest.raises(UserError, match="does not divide"):
    module.apply({}, normal(1, 6, 8, 1), train=False)


def test_a_decoder_is_told_the_label_in_training_and_in_sampling():
  model, x = super_resolution(3), normal(4, 8, 8, 1)
  assert model.conditions == ("label",) and super_resolution(0).conditions == ()
  rngs = {"params": KEY, "decoder": KEY}
  variables = randomise(jax.eval_shape(lambda: model.init(rngs, x, train=True)), 0.3)
  run = lambda given: model.apply(variables, x, train=True, given=given, rngs={"decoder": KEY})
  (latent, told), (_, other), (_, nothing) = (run(g) for g in ({"label": NUMBERS}, {"label": NUMBERS[::-1]}, None))
  assert float(told.terms["flow"]) != float(other.terms["flow"]) != float(nothing.terms["flow"])
  np.testing.assert_array_equal(told.x[3], run({"label": NUMBERS.at[0].set(2)})[1].x[3])  # each its own
  np.testing.assert_array_equal(latent.z, model.apply(variables, x, method="encode").z)  # the encoder never reads it
  decode = lambda given: model.apply(
    variables, Latent(z=latent.z, given=given), steps=2, method="decode", rngs={"decoder": KEY}
  )
  assert np.abs(decode({"label": NUMBERS}) - decode(None)).max() > 1e-3


@pytest.mark.parametrize("wrap", [Equivariant, Gained, Categorical])
def test_a_decoder_around_another_reads_what_that_one_reads(wrap):
  inner = super_resolution(3).decoder.clone()
  assert (wrap(inner=inner).conditions, wrap(inner=inner).classes) == (("label",), 3)
  assert (wrap(inner=ConvDecoder(ch=8)).conditions, wrap(inner=ConvDecoder(ch=8)).classes) == ((), 0)
  assert super_resolution(3).clone(decoder=wrap(inner=inner)).conditions == ("label",)


def cascade(classes: int = 10, conditioner: Conditioner = Labels(), **unet) -> Experiment:  # noqa: B008
  """Pictures of 16x16 from 4x4, by a decoder that is told labels, and a prior of the small ones."""
  made = micro.experiment(gan=False)
  backbone = UNet(ch=8, mult=(1,), blocks=1, classes=classes, out=1, **unet)
  model = Autoencoder(
    encoder=Downsample(factor=4),
    bottleneck=NoBottleneck(),
    decoder=FlowDecoder(backbone=backbone, stride=4, channels=1),
  )
  one = dataclasses.replace(made.stage1, model=model, losses={"flow": Weight(1.0)}, steps=2, conditioner=conditioner)
  return dataclasses.replace(made, name="cascade", stage1=one, stage2=dataclasses.replace(made.stage2, steps=2))


def test_a_decoder_that_is_told_other_labels_than_the_data_have_is_refused(tmp_path):
  for made, words in (
    (cascade(classes=3), "the decoder has 3 labels, the data have 10"),
    (cascade(conditioner=text()), "the decoder reads 'label', but Text gives text, text_mask"),
  ):
    with pytest.raises(UserError, match=words):
      run.run(made, tmp_path, None, "test")
  assert not list(tmp_path.iterdir())


def test_samples_of_a_prior_without_labels_are_told_to_a_decoder_that_has_them(tmp_path):
  made = cascade()
  prior = made.stage2.prior
  blind = prior.clone(backbone=prior.backbone.clone(classes=0), guidance=1.0)
  found = latents.load(
    run.run(dataclasses.replace(made, stage2=dataclasses.replace(made.stage2, prior=blind)), tmp_path, None, "test")
  )
  drawn = found.sampler.labels(None, 12).tolist()
  assert drawn[:10] == [*range(10)] and len({*drawn[10:]}) == 2  # all in turn, not the first again and again
  latent = next(found.sampler.latents(np.array([1, 2], np.int32), 0, None))[0]
  assert latent.given["label"][:2].tolist() == [1, 2]
  assert found.sample(labels=[3]).shape == (1, 16, 16, 1)


def test_a_cascade_is_trained_sampled_and_scored_by_the_same_code(tmp_path):
  found = latents.load(run.run(cascade(), tmp_path, None, "test"))
  x = np.random.default_rng(0).uniform(-1, 1, (3, 16, 16, 1)).astype(np.float32)
  a, b = (found.reconstruct(x, labels=labels) for labels in ([1, 2, 3], None))
  assert a.shape == x.shape and not np.array_equal(a, b)
  for wrong in ([1, 2], [1, 2, 10]):
    with pytest.raises(UserError, match=r"labels are one of 0 to 9 for each of the 3 examples"):
      found.reconstruct(x, labels=wrong)
  draw = lambda labels: found.sample(labels=labels, guidance=1.0)
  assert draw([1, 2]).shape == (2, 16, 16, 1)
  latent = next(found.sampler.latents(np.array([1, 2], np.int32), 0, 1.0))[0]
  assert latent.given["label"][:2].tolist() == [1, 2]
