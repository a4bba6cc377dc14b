"""Backbones: published sizes, zero output at the start, conditioning, cache, clear errors."""

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from latents.backbones import (
  DiT,
  Transformer,
  UNet,
  UViT,
  adm256,
  dit_b,
  dit_l,
  dit_s,
  dit_xl,
  ldm4,
  ldm8,
  sd1,
  uvit_h,
  uvit_l,
  uvit_m,
  uvit_s,
)
from latents.errors import UserError
from latents.nn.conv import nearest
from latents.nn.convolve import convolve
from latents.plan import flops
from latents.priors import FlowPrior
from latents.types import Latent
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


def test_tokens_of_the_class_stand_in_from_their_block_on_and_dropout_in_the_middle_half():
  x, label = normal(2, 4, 4, 3), {"label": jnp.array([0, 2])}
  model = DiT(4, 16, 2, classes=3, rope=True, norm="rms", context=3, context_from=2, dropout=0.5)
  params = drawn(model, x, TIME, None)
  assert params["params"]["context_places"].shape == (3, 16)
  plain = model.clone(context=0)

  def hidden(model, params, *options, **rngs):
    state = model.apply(params, x, TIME, label, **dict(options), **rngs, capture_intermediates=True)[1]
    return [state["intermediates"][f"blocks_{i}"]["__call__"][0] for i in range(4)]

  seen = hidden(model, params)
  assert [h.shape[1] for h in seen] == [4, 4, 7, 7]
  other = {"params": {k: v for k, v in params["params"].items() if k != "context_places"}}
  alone = hidden(plain, other)
  assert all(np.array_equal(a, b) for a, b in zip(seen[:2], alone[:2], strict=True))
  assert np.abs(seen[3][:, 3:] - alone[3]).max() > 1e-3
  dropped = hidden(plain, other, ("train", True), rngs={"dropout": KEY})
  assert [np.array_equal(a, b) for a, b in zip(dropped, alone, strict=True)] == [True, False, False, False]
  with pytest.raises(UserError, match="3 tokens of the class need"):
    DiT(1, 16, 2, context=3).init(KEY, x, TIME, None)


@pytest.mark.parametrize(("make", "million"), [(uvit_s, 44), (uvit_m, 131), (uvit_l, 287), (uvit_h, 501)])
def test_uvit_sizes_are_the_papers(make, million: int):
  """Table 1, on latents of 32 x 32 x 4 with 1,000 classes; S has no classes there (CIFAR-10, 32 x 32 x 3)."""
  classes, d = (0, 3) if make is uvit_s else (1000, 4)
  model = make(classes=classes, conv=make is not uvit_h)
  params = jax.eval_shape(model.init, KEY, jnp.zeros((1, 32, 32, d)), jnp.zeros(1), None)
  assert abs(count(params) / 1e6 - million) < 1


def test_lightning_dit_has_the_papers_size():
  """XL/1 on latents of 16 x 16 x 32: 675M; one of the same width without its options is 0.3 % smaller or larger."""
  options = {"norm": "rms", "mlp": "swiglu", "rope": True}
  given = KEY, jnp.zeros((1, 16, 16, 32)), jnp.zeros(1), None
  found, plain = (count(jax.eval_shape(dit_xl(1, classes=1000, **o).init, *given)) for o in (options, {}))
  assert 674e6 < found < 677e6
  width, depth = 1152, 28
  hidden = int(2 / 3 * 4 * width)
  assert found - plain == depth * (2 * width + 2 * hidden - 4 * width) + width  # scales of norms; biases of the MLP


def test_a_uvit_of_even_depth_is_refused_and_its_skips_are_read():
  x = normal(2, 4, 4, 3)
  with pytest.raises(UserError, match="odd number of blocks, not 4"):
    UViT(4, 16, 2).init(KEY, x, TIME, None)
  model = UViT(5, 16, 2)
  params = drawn(model, x, TIME, None)
  blocks = params["params"]
  assert [f"blocks_{i}" for i in range(5) if "skip" in blocks[f"blocks_{i}"]] == ["blocks_3", "blocks_4"]

  def cut(i, rows):  # what block i reads of an earlier one, or of the one before it
    kernel = blocks[f"blocks_{i}"]["skip"]["kernel"].at[rows].set(0.0)
    skip = {**blocks[f"blocks_{i}"]["skip"], "kernel": kernel}
    return {"params": {**blocks, f"blocks_{i}": {**blocks[f"blocks_{i}"], "skip": skip}}}

  output = jax.jit(lambda params: model.apply(params, x, TIME, None))
  outer = cut(4, slice(0, 16))  # the last block without the one before it: the first block alone reaches the end
  moved = {"params": {**outer["params"], "blocks_2": jax.tree.map(lambda a: a + 1.0, blocks["blocks_2"])}}
  assert np.array_equal(output(outer), output(moved))
  first = {"params": {**outer["params"], "blocks_0": jax.tree.map(lambda a: a + 0.1, blocks["blocks_0"])}}
  assert np.abs(output(outer) - output(first)).max() > 1e-3


SCANNED = {
  "text": DiT(4, 16, 2, text=(3, 5), remat="dots"),
  "jit": DiT(8, 16, 2, classes=3, rope=True, norm="rms", mlp="swiglu", context=3, context_from=5, remat="block"),
}


@pytest.mark.parametrize("model", SCANNED.values(), ids=SCANNED.keys())
def test_a_scanned_backbone_is_the_unrolled_one_in_a_smaller_program(model: DiT):
  x = normal(2, 4, 4, 3)
  cond = {"label": jnp.array([0, 2]), "text": normal(2, 3, 5), "text_mask": jnp.array([[1, 1, 0], [1, 0, 0]])}
  scanned = model.clone(scan=True)
  trees = [jax.eval_shape(m.init, KEY, x, TIME, cond) for m in (model, scanned)]
  assert trees[0] == trees[1]
  params = randomise(trees[0], 0.1)

  def program(m, params):
    def loss(p):
      y = m.apply(p, x, TIME, cond)
      return jnp.sum((y - x) ** 2), y

    return jax.jit(jax.value_and_grad(loss, has_aux=True)).lower(params)

  deep, wide = (m.clone(depth=16) for m in (model, scanned))
  shapes = jax.eval_shape(deep.init, KEY, x, TIME, cond)
  assert len(program(wide, shapes).as_text()) < 0.6 * len(program(deep, shapes).as_text())
  programs = [program(m, params) for m in (model, scanned)]
  ((_, y), slopes), ((_, again), others) = (one.compile()(params) for one in programs)
  assert np.abs(y - again).max() <= 1e-6 * np.abs(y).max()
  for a, b in zip(jax.tree.leaves(slopes), jax.tree.leaves(others), strict=True):
    assert np.abs(a - b).max() <= 1e-6 * (1 + np.abs(a).max())


def test_a_prior_trains_and_samples_with_a_scanned_backbone():
  prior = FlowPrior(backbone=DiT(4, 16, 2, classes=3, scan=True, dropout=0.1))
  latent, cond = Latent(z=jnp.zeros((2, 4, 4, 3))), {"label": jnp.zeros(2, jnp.int32)}
  keys = {"params": KEY, "prior": KEY, "dropout": KEY}
  params = jax.eval_shape(lambda: prior.init(keys, latent, cond, train=True, method="loss"))

  def run(params):
    slope = jax.grad(lambda p: prior.apply(p, latent, cond, train=True, method="loss", rngs=keys)["flow"])(params)
    return slope, prior.apply(params, cond, shape=(4, 4, 3), guidance=2.0, method="sample", rngs=keys).z

  slope, z = jax.eval_shape(run, params)
  assert slope == params
  assert z.shape == (2, 4, 4, 3)


def test_jit_sizes_are_the_papers():
  """JiT-B/16 and L/16 at 256 px: 131M and 459M (Li & He 2025, table 9)."""
  for make, million, start in ((dit_b, 131, 4), (dit_l, 459, 8)):
    model = make(
      16,
      classes=1000,
      norm="rms",
      mlp="swiglu",
      rope=True,
      qk_norm=True,
      bottleneck=128,
      context=32,
      context_from=start,
    )
    params = jax.eval_shape(model.init, KEY, jnp.zeros((1, 256, 256, 3)), jnp.zeros(1), None)
    assert round(count(params) / 1e6) == million


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


@pytest.mark.parametrize(("make", "shape"), [row[1:] for row in BACKBONES], ids=[row[0] for row in BACKBONES])
def test_products_are_of_the_compute_dtype_forward_and_back(make, shape):
  """All but the gradient of attention's softmax, whose numbers are float32."""
  model = make().clone(dtype="bfloat16")
  x, t = jax.ShapeDtypeStruct((2, *shape), jnp.float32), jax.ShapeDtypeStruct((2,), jnp.float32)
  variables = jax.eval_shape(lambda x, t: model.init(jax.random.key(0), x, t, None), x, t)
  total = jax.grad(lambda variables, x, t: model.apply(variables, x, t, None).sum())
  counted = flops.count(jax.make_jaxpr(total)(variables, x, t))
  assert set(counted) <= {"bfloat16", "float32"} and counted["float32"] < 0.03 * counted["bfloat16"]


class Drops(nn.Module):
  """A block that adds its dropout of ones."""

  heads: int
  ratio: float
  dtype: str
  norm: str
  mlp: str
  qk_norm: bool
  dropout: float

  @nn.compact
  def __call__(self, h, c, seen=None, angles=None, train=False):
    ones = self.param("ones", nn.initializers.ones, h.shape[-1:])
    return h + nn.Dropout(self.dropout, deterministic=not train)(jnp.broadcast_to(ones, h.shape))


def test_each_scanned_block_drops_other_numbers(monkeypatch):
  monkeypatch.setattr("latents.backbones.dit.Block", Drops)
  model, h = DiT(8, 16, 2, dropout=0.5, scan=True), jnp.zeros((2, 64, 16))
  variables = model.init(KEY, normal(2, 4, 4, 3), TIME, None)
  run = lambda model, h: model._blocks(2, 6, h, None, None, None, True)  # the middle half
  found = model.apply(variables, h, method=run, rngs={"dropout": KEY})
  assert set(np.unique(found)) == {0.0, 2.0, 4.0, 6.0, 8.0}  # of one mask in all blocks 0 and 8 alone
