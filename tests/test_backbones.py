"""Backbones: published sizes, zero output at the start, conditioning, cache, clear errors."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from latents.backbones import DiT, Transformer, UNet, adm256, dit_b, dit_l, dit_s, dit_xl, ldm4, ldm8, sd1
from latents.errors import UserError
from latents.nn.conv import nearest
from latents.nn.convolve import convolve
from latents.plan import flops
from tests.members.backbones import BACKBONES
from tests.test_nn import drawn, first_run, normal, randomise

KEY = jax.random.key(0)
TIME = jnp.array([0.1, 0.7])
BY_NAME = pytest.mark.parametrize(("make", "shape"), [m[1:] for m in BACKBONES], ids=[m[0] for m in BACKBONES])


def count(tree) -> int:
  return sum(x.size for x in jax.tree.leaves(tree))


@pytest.mark.parametrize(
  ("make", "width", "paper"),
  [
    (dit_s, 384, 32_963_360),
    (dit_b, 768, 130_512_416),
    (dit_l, 1024, 458_102_816),
    (dit_xl, 1152, 675_129_632),
  ],
)
def test_dit_sizes_are_the_papers(make, width: int, paper: int):
  """The paper's implementation counts the fixed table of 256 positions, which is no parameter here."""
  model = make(patch=2, classes=1000, out=8)
  params = jax.eval_shape(model.init, KEY, jnp.zeros((1, 32, 32, 4)), jnp.zeros(1), {"label": jnp.zeros(1, jnp.int32)})
  assert count(params) + 256 * width == paper


@pytest.mark.parametrize(
  ("make", "latent", "parameters"),
  [
    (sd1, (64, 64, 4), 859_520_964),  # as diffusers counts runwayml's
    (ldm4, (64, 64, 3), 400_920_579 + 1001 * 512),  # the authors' log says 400.92 M for the U-Net, and the class tokens
    (ldm8, (32, 32, 4), 394_984_196 + 1001 * 512),  # 395 M
    (adm256, (256, 256, 3), 553_838_086 + 4 * 256),  # 554 M, and our null label
  ],
)
def test_unet_sizes_are_the_papers(make, latent, parameters: int):
  x, t = jax.ShapeDtypeStruct((1, *latent), jnp.float32), jax.ShapeDtypeStruct((1,), jnp.float32)
  assert count(jax.eval_shape(lambda x, t: make().init(KEY, x, t, None), x, t)) == parameters


@pytest.mark.parametrize(("make", "latent", "giga"), [(ldm4, (64, 64, 3), 103.6), (adm256, (256, 256, 3), 1120)])
def test_unet_products_are_as_many_as_published(make, latent, giga: float, monkeypatch):
  """DiT, arXiv:2212.09748, figure 2 and table 4: multiply-adds of one pass, of layers that double by repeating."""
  plain = lambda x, kernel: convolve(nearest(x), kernel.astype(x.dtype))
  monkeypatch.setattr("latents.nn.conv.doubled", plain)  # ours has 4 of 9 products there
  x, t = jax.ShapeDtypeStruct((1, *latent), jnp.float32), jax.ShapeDtypeStruct((1,), jnp.float32)
  model = make()
  params = jax.eval_shape(lambda x, t: model.init(KEY, x, t, None), x, t)
  found = flops.count(jax.make_jaxpr(lambda p, x, t: model.apply(p, x, t, None))(params, x, t))
  assert found["float32"] / 2e9 == pytest.approx(giga, rel=0.03)


def test_a_unet_attends_to_texts_that_are_seen():
  model, x = UNet(8, (1, 1), 1, (1,), 2, depth=1, text=(3, 5), resample="both"), normal(2, 4, 4, 3)
  assert model.conditions == ("text", "text_mask")
  text, mask = normal(2, 3, 5, seed=1), jnp.array([[True, True, False], [True, False, False]])
  cond = {"text": text, "text_mask": mask}
  params = drawn(model, x, TIME, None, scale=0.2)
  run = jax.jit(lambda cond: model.apply(params, x, TIME, cond))
  y = run(cond)
  unseen = run({**cond, "text": text.at[:, 2].add(9.0)})
  np.testing.assert_array_equal(y, unseen)
  assert np.abs(y - run({**cond, "text": text.at[:, 0].add(1.0)})).min(axis=(1, 2, 3)).max() > 0
  gone, drop = {**cond, "drop": jnp.array([True, False])}, model.apply(params, x, TIME, None)
  np.testing.assert_allclose(run(gone)[0], drop[0], atol=1e-5)
  np.testing.assert_allclose(run(gone)[1], y[1], atol=1e-5)
  # a release that was trained with an empty text in place of none says which
  null = {**gone, "text_null": jnp.stack([text[1], text[1]])}
  instead = {"text": jnp.stack([text[1], text[1]]), "text_mask": jnp.stack([jnp.ones(3, bool), mask[1]])}
  np.testing.assert_allclose(run(null), run(instead), atol=1e-5)


def test_a_unet_that_cannot_be():
  for fields, words in (
    ({"text": (3, 5)}, "its depth is 0"),
    ({"depth": 1, "context": 4}, "and to no other thing"),
    ({"depth": 1, "context": 4, "classes": 2, "text": (3, 5)}, "and to no other thing"),
    ({"head": 3}, "8 channels do not divide into heads of 3"),
    ({"depth": 1, "heads": 3}, "width 8 does not divide into 3 heads"),
  ):
    with pytest.raises(UserError, match=words):
      jax.eval_shape(lambda f=fields: UNet(8, (1, 1), 1, **f).init(KEY, jnp.zeros((1, 4, 4, 3)), jnp.zeros(1), None))


@BY_NAME
def test_output_is_zero_at_the_start_and_has_the_input_shape(make, shape):
  x = normal(2, *shape)
  y = first_run(make(), x, TIME, None)[0]
  assert y.shape == x.shape
  assert y.dtype == jnp.float32
  assert not np.any(y)


@BY_NAME
def test_time_and_label_matter_and_samples_do_not_mix(make, shape):
  model, x = make(), normal(2, *shape)
  params = drawn(model, x, TIME, None, scale=0.2)
  run = jax.jit(lambda x, t, c: model.apply(params, x, t, c))
  label, null = {"label": jnp.array([0, 1])}, {"label": jnp.array([1, 0]), "drop": jnp.ones(2, bool)}
  y = run(x, TIME, label)
  assert np.abs(y - run(x, TIME + 0.1, label)).max() > 1e-3
  assert (np.abs(y - run(x, TIME, null)).max() > 1e-3) == (model.classes > 0)
  assert np.abs(run(x, TIME, null) - run(x, TIME, None)).max() < 1e-5
  swapped = run(x[::-1], TIME[::-1], {"label": label["label"][::-1]})[::-1]
  assert np.abs(y - swapped).max() < 1e-4 * (1 + np.abs(y).max())
  other = run(x.at[1].add(1.0), TIME, label)
  assert np.abs((y - other)[0]).max() < 1e-4 * (1 + np.abs(y).max())


def test_gradients_reach_the_zero_layers_first_and_remat_changes_nothing():
  x, label = normal(2, 4, 4, 3), {"label": jnp.array([0, 2])}
  model = DiT(2, 16, 2, classes=3)
  params = first_run(model, x, TIME, label)[1]

  def slope(model, params):
    return jax.jit(jax.grad(lambda p: jnp.sum((model.apply(p, x, TIME, label) - x) ** 2)))(params)

  first = slope(model, params)["params"]
  assert np.abs(first["final"]["kernel"]).max() > 0
  assert not np.any(first["blocks_0"]["attention"]["qkv"]["kernel"])
  params = randomise(params)
  plain = slope(model, params)
  for remat in ("block", "dots"):
    again = slope(model.clone(remat=remat), params)
    for a, b in zip(jax.tree.leaves(plain), jax.tree.leaves(again), strict=True):
      assert np.abs(a - b).max() <= 1e-5 * (1 + np.abs(a).max())
  assert np.abs(plain["params"]["blocks_0"]["attention"]["qkv"]["kernel"]).max() > 0


def test_what_is_recomputed_has_a_name():
  """ "dots" computes only attention's two products a second time, "block" all linear layers too."""

  def products(model, *given):
    params = jax.eval_shape(lambda: model.init(jax.random.key(0), *given))
    slope = jax.grad(lambda p: jnp.sum(model.apply(p, *given, train=False)))
    return flops.count(jax.make_jaxpr(slope)(params))["float32"]

  of = {
    remat: products(DiT(2, 16, 2, remat=remat), normal(2, 4, 4, 3), TIME, None) for remat in ("none", "dots", "block")
  }
  tokens, width, depth = 4, 16, 2
  assert of["dots"] - of["none"] == depth * 2 * (2 * 2 * tokens**2 * width)
  assert of["block"] - of["dots"] >= depth * 2 * (2 * tokens * 11 * width**2)  # qkv, out, fc1; fc2 where it is needed
  tokens = jnp.zeros((2, 8), jnp.int32)
  of = {remat: products(Transformer(7, 16, 2, 2, 8, remat=remat), tokens, None) for remat in ("none", "dots", "block")}
  assert of["none"] < of["dots"] < of["block"]


def test_compute_dtype_leaves_parameters_and_output_in_float32():
  x = normal(2, 4, 4, 3)
  for model in (DiT(1, 16, 2, dtype="bfloat16"), UNet(8, (1, 2), 1, dtype="bfloat16")):
    shapes = jax.eval_shape(model.init, KEY, x, TIME, None)
    assert {p.dtype.name for p in jax.tree.leaves(shapes)} == {"float32"}
    params = randomise(shapes, 0.1)
    y = jax.jit(model.apply)(params, x, TIME, None)
    reference = jax.jit(model.clone(dtype="float32").apply)(params, x, TIME, None)
    assert y.dtype == jnp.float32
    assert np.abs(y - reference).max() < 0.05 * np.abs(reference).max()


def test_wrong_grids_are_one_clear_line():
  with pytest.raises(UserError, match="patch 2 does not divide the axis of 5"):
    DiT(1, 16, 2).init(KEY, jnp.zeros((1, 5, 4, 3)), jnp.zeros(1), None)
  with pytest.raises(UserError, match=r"4 divides, not \(6, 8\)"):
    UNet(8, (1, 1, 1)).init(KEY, jnp.zeros((1, 6, 8, 3)), jnp.zeros(1), None)
  with pytest.raises(UserError, match="12"):
    Transformer(5, 16, 1, 2, length=12).init(KEY, jnp.zeros((1, 10), jnp.int32), None)
  with pytest.raises(UserError, match="13 tokens does not divide into 2 levels"):
    Transformer(5, 16, 1, 2, length=13, groups=2).init(KEY, jnp.zeros((1, 13), jnp.int32), None)


TRANSFORMERS = {
  "learned": Transformer(7, 16, 2, 2, length=6, classes=3, multiple=8),
  "levels": Transformer(7, 16, 2, 2, length=8, groups=2, classes=3, multiple=8),
  "sincos": Transformer(7, 16, 2, 2, length=6, position="sincos", multiple=8),
  "remat": Transformer(7, 16, 2, 2, length=6, remat="block", multiple=8),
  "grids": Transformer(7, 16, 2, 2, length=8, classes=3, multiple=8, layout=((2, 2), (4,))),
  "one grid": Transformer((7,), 16, 2, 2, length=6, position="sincos", multiple=8, layout=((2, 3),)),
}
OF_TOKENS = pytest.mark.parametrize("model", TRANSFORMERS.values(), ids=TRANSFORMERS.keys())


def tokens_of(model: Transformer, batch: int = 2) -> jax.Array:
  return jnp.asarray(np.random.default_rng(0).integers(0, model.vocabs[0], (batch, model.length)), jnp.int32)


@OF_TOKENS
def test_logits_are_zero_at_the_start(model: Transformer):
  logits = first_run(model, tokens_of(model), None)[0]
  assert logits.shape == (2, model.length, 7)
  assert not np.any(logits)


@OF_TOKENS
def test_cached_steps_give_the_full_pass_at_every_position(model: Transformer):
  tokens, label = tokens_of(model), {"label": jnp.array([0, 2])}
  params = drawn(model, tokens, label)
  full = jax.jit(model.apply)(params, tokens, label)
  step = jax.jit(lambda *args: model.apply(params, *args, method="step"))
  cache, before = model.cache(2), jnp.zeros(2, jnp.int32)
  for i in range(model.length):
    logits, cache = step(before, label, jnp.asarray(i), cache)
    assert np.abs(logits - full[:, i]).max() < 1e-5
    before = tokens[:, i]
  assert jax.tree.map(jnp.shape, cache) == jax.tree.map(jnp.shape, model.cache(2))


@OF_TOKENS
def test_a_token_is_predicted_from_the_tokens_before_it_alone(model: Transformer):
  tokens = tokens_of(model)
  params = drawn(model, tokens, None)
  run = jax.jit(lambda tokens: model.apply(params, tokens, None))
  base = run(tokens)
  for i in range(model.length):
    moved = run(tokens.at[:, i].add(1) % model.vocabs[0])
    changed = np.abs(moved - base).max((0, 2)) > 1e-6
    assert not changed[: i + 1].any()
    assert i + 1 == model.length or changed[i + 1]


def test_transformer_label_and_dropout():
  model = Transformer(7, 16, 1, 2, length=6, classes=3, dropout=0.5, multiple=8)
  tokens = tokens_of(model)
  params = drawn(model, tokens, None)
  run = lambda cond, **kw: model.apply(params, tokens, cond, **kw)
  assert np.array_equal(run(None), run({"label": jnp.full(2, 3)}))
  assert np.abs(run(None) - run({"label": jnp.zeros(2, jnp.int32)}))[:, 0].max() > 1e-3
  assert np.abs(run(None) - run(None, train=True, rngs={"dropout": KEY})).max() > 1e-3
