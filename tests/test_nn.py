"""Layers against closed forms and against flax's own layers."""

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.sharding import AxisType

from latents.errors import UserError
from latents.nn import attention
from latents.nn.attention import Attention, attend, attend_one
from latents.nn.conv import AttentionBlock, Conv, DepthwiseConv, Downsample, ResBlock, Upsample, nearest, pooled
from latents.nn.linear import Dense, product
from latents.nn.mlp import Mlp, SwiGLU, swiglu_hidden
from latents.nn.norm import GroupNorm, LayerNorm, RMSNorm, groups_of
from latents.nn.patch import patchify, unpatchify
from latents.nn.position import rotary, sincos, turn
from latents.nn.residual import Residual
from latents.nn.sharding import constrain, on_cpu
from latents.nn.time import TimeEmbedding, frequencies
from latents.plan import flops
from tests import micro

KEY = jax.random.key(0)


def normal(*shape: int, seed: int = 0) -> jax.Array:
  """Standard normal numbers from numpy: nothing to compile."""
  return jnp.asarray(np.random.default_rng(seed).normal(size=shape), jnp.float32)


def randomise(tree, scale: float = 0.3):
  """Every parameter drawn anew, so that zero-initialised layers take part."""
  leaves, structure = jax.tree.flatten(tree)
  return jax.tree.unflatten(structure, [scale * normal(*x.shape, seed=i) for i, x in enumerate(leaves)])


def drawn(module: nn.Module, *args, scale: float = 0.3, **options):
  """Random parameters of the module's structure, without running its initialisation."""
  return randomise(jax.eval_shape(lambda *a: module.init(KEY, *a, **options), *args), scale)


def first_run(module: nn.Module, *args):
  """(output, parameters) at initialisation."""
  return jax.jit(module.init_with_output)(KEY, *args)


@pytest.mark.parametrize(("channels", "groups"), [(128, 32), (64, 16), (8, 2), (48, 12), (3, 1), (512, 32)])
def test_group_norm_is_flax_group_norm(channels: int, groups: int):
  x = 3 + 2 * normal(2, 5, 7, channels)
  assert groups_of(channels) == groups
  params = {"params": {"scale": normal(channels, seed=1), "bias": normal(channels, seed=2)}}
  expected = nn.GroupNorm(groups, epsilon=1e-6, use_fast_variance=False).apply(params, x)
  assert np.abs(GroupNorm().apply(params, x) - expected).max() < 2e-5


def test_norms_match_flax_and_keep_their_dtype():
  x = 1 + normal(2, 5, 16)
  ours, flax_norm = (
    LayerNorm(),
    nn.LayerNorm(epsilon=1e-6, use_bias=False, use_scale=False, use_fast_variance=False),
  )
  assert np.abs(ours.apply({}, x) - flax_norm.apply({}, x)).max() < 1e-5
  y, params = first_run(RMSNorm(), x)
  assert np.abs(y - nn.RMSNorm(epsilon=1e-5).apply(params, x)).max() < 1e-5
  half = x.astype(jnp.bfloat16)
  assert first_run(GroupNorm(dtype="bfloat16"), half)[0].dtype == jnp.bfloat16
  # statistics in float32: a large mean does not swamp the deviations as bfloat16 sums would
  assert np.abs(np.asarray(LayerNorm(dtype="bfloat16").apply({}, half), np.float32) - ours.apply({}, half)).max() < 0.02


@pytest.mark.parametrize("axes", [1, 2, 3])
def test_conv_is_flax_conv(axes: int):
  x = normal(2, *[6] * axes, 4)
  layer = Conv(5)
  params = layer.init(KEY, x)
  expected = nn.Conv(5, (3,) * axes).apply(params, x)
  assert np.abs(layer.apply(params, x) - expected).max() < 1e-5
  bound = 1 / np.sqrt(4 * 3**axes)  # PyTorch: uniform in +-1/sqrt(fan_in)
  kernel = np.asarray(params["params"]["kernel"])
  assert bound > np.abs(kernel).max() > 0.8 * bound


@pytest.mark.parametrize("shape", [(8, 16), (4, 8, 16), (4, 4, 4, 16)])
def test_blocks_work_for_any_number_of_axes(shape: tuple[int, ...]):
  x = normal(2, *shape)
  down = first_run(Downsample(), x)[0]
  assert down.shape == (2, *[n // 2 for n in shape[:-1]], 16)
  assert first_run(Upsample(8), x)[0].shape == (2, *[2 * n for n in shape[:-1]], 8)
  assert first_run(AttentionBlock(4), x)[0].shape == x.shape
  assert first_run(ResBlock(32), x)[0].shape == (2, *shape[:-1], 32)


def test_downsample_pads_bottom_and_right_only():
  x = normal(1, 4, 4, 1)
  kernel = jnp.zeros((3, 3, 1, 1)).at[0, 0].set(1.0)  # the first tap reads x[2i, 2j]: nothing is padded before it
  y = Downsample().apply({"params": {"conv": {"kernel": kernel, "bias": jnp.zeros(1)}}}, x)
  assert np.array_equal(y[0, :, :, 0], x[0, ::2, ::2, 0])
  with pytest.raises(UserError, match=r"\(5, 4\)"):
    Downsample().init(KEY, normal(1, 5, 4, 1))


def test_res_block_parameters_and_time():
  x, time = normal(2, 4, 4, 8), normal(2, 6, seed=1)
  names = lambda block, *args: set(drawn(block, *args)["params"])
  plain = {"norm1", "conv1", "norm2", "conv2"}
  assert names(ResBlock(), x) == plain
  assert names(ResBlock(16), x) == plain | {"shortcut"}
  assert names(ResBlock(film=True), x, time) == plain | {"time"}
  assert np.array_equal(first_run(ResBlock(zero=True), x)[0], x)
  x = normal(2, 4, 4, 64)
  for film in (False, True):
    block = ResBlock(film=film)
    params = drawn(block, x, time)
    assert params["params"]["time"]["kernel"].shape == (6, 128 if film else 64)
    run = jax.jit(block.apply)
    assert np.abs(run(params, x, time) - run(params, x, time + 1)).max() > 1e-3


def test_attend_is_softmax_attention_and_causal():
  q, k, v = (normal(2, 5, 3, 4, seed=i) for i in range(3))
  logits = jnp.einsum("bnhf,bmhf->bhnm", q, k) / 2
  assert np.abs(attend(q, k, v) - jnp.einsum("bhnm,bmhf->bnhf", jax.nn.softmax(logits), v)).max() < 1e-5
  lower = jnp.tril(jnp.ones((5, 5), bool))
  assert np.abs(attend(q, k, v, causal=True) - attend(q, k, v, mask=lower[None, None])).max() < 1e-6
  assert np.abs(attend(q, k, v, causal=True)[:, 0] - v[:, 0]).max() < 1e-6
  half = attend(*(a.astype(jnp.float16) for a in (q, k, v)), mask=lower[None, None])  # which XLA's CPU cannot multiply
  assert half.dtype == jnp.float16 and np.abs(half - attend(q, k, v, causal=True)).max() < 2e-3


def test_attention_ignores_masked_keys():
  x, mask = normal(2, 5, 8), jnp.arange(5) < 3
  layer = Attention(2)
  params = drawn(layer, x)
  mask = jnp.stack([mask, mask])
  a, b = layer.apply(params, x, mask), layer.apply(params, x.at[:, 3:].set(9.0), mask)
  assert np.abs((a - b)[:, :3]).max() < 1e-6
  with pytest.raises(UserError, match="width 8 does not divide into 3 heads"):
    Attention(3).init(KEY, x)


def test_mlps():
  x = normal(3, 8)
  assert drawn(Mlp(4.0), x)["params"]["fc1"]["kernel"].shape == (8, 32)
  assert swiglu_hidden(768, 256) == 2048
  assert swiglu_hidden(1024, 256) == 2816  # LlamaGen-L
  layer = SwiGLU(16)
  p = drawn(layer, x)["params"]
  expected = (nn.silu(x @ p["gate"]["kernel"]) * (x @ p["up"]["kernel"])) @ p["down"]["kernel"]
  assert np.abs(layer.apply({"params": p}, x) - expected).max() < 1e-5


def test_rotary_angles_are_positions_times_frequencies_and_the_first_axis_comes_first():
  angles = rotary((3, 5), 12)  # 6 pairs, 3 an axis
  assert angles.shape == (15, 6)
  rows, columns = np.indices((3, 5)).reshape(2, -1, 1)
  speed = 10000.0 ** (-np.arange(3) / 3)
  assert np.allclose(angles, np.concatenate([rows * speed, columns * speed], 1), rtol=1e-6)
  assert np.array_equal(rotary((2, 2, 2), 16)[:, 6:], np.zeros((8, 2)))  # 2 pairs an axis, 2 that do not turn
  assert rotary((4,), 6).shape == (4, 3)
  with pytest.raises(UserError, match="3 axes need heads of at least 6, not 4"):
    rotary((2, 2, 2), 4)


def test_turned_products_depend_on_the_difference_of_places_alone():
  q, k = (jnp.broadcast_to(normal(8, seed=i), (1, 12, 1, 8)) for i in (1, 2))
  angles = rotary((3, 4), 8)
  products = np.asarray(jnp.einsum("bqhf,bkhf->qk", turn(q, angles), turn(k, angles))).reshape(3, 4, 3, 4)
  assert np.abs(products[1:, 1:, 1:, 1:] - products[:-1, :-1, :-1, :-1]).max() < 1e-5
  assert np.abs(products[1:, :, :-1] - products[:-1, :, 1:]).max() > 1e-2
  pair = turn(jnp.array([1.0, 2.0]).reshape(1, 1, 1, 2), np.full((1, 1), np.pi / 2, np.float32))
  assert np.allclose(pair.ravel(), [-2, 1], atol=1e-6)
  assert turn(q.astype(jnp.bfloat16), angles).dtype == jnp.bfloat16


def test_attention_norms_queries_and_keys_head_by_head():
  x, layer = normal(2, 4, 16), Attention(2, qk_norm=True)
  params = drawn(layer, x)
  assert params["params"]["q_norm"]["scale"].shape == (8,)
  larger = jax.tree.map(lambda a: a, params)
  larger["params"]["qkv"] = {
    "kernel": params["params"]["qkv"]["kernel"].at[:, :32].multiply(7.0),
    "bias": params["params"]["qkv"]["bias"].at[:32].multiply(7.0),
  }
  assert np.abs(layer.apply(params, x) - layer.apply(larger, x)).max() < 1e-4
  assert np.abs(Attention(2).apply(params, x) - Attention(2).apply(larger, x)).max() > 1e-2


def test_swiglu_mlp_is_its_equation_and_has_the_size_of_a_gelu_one():
  x = normal(2, 3, 24)
  params = drawn(Mlp(kind="swiglu"), x)
  p = params["params"]
  gate, up = jnp.split(x @ p["fc1"]["kernel"] + p["fc1"]["bias"], 2, -1)
  expected = (nn.silu(gate) * up) @ p["fc2"]["kernel"] + p["fc2"]["bias"]
  assert np.abs(Mlp(kind="swiglu").apply(params, x) - expected).max() < 1e-5
  kernels = [
    sum(a.size for a in jax.tree.leaves(drawn(Mlp(kind=kind), x)) if a.ndim == 2) for kind in ("gelu", "swiglu")
  ]
  assert kernels[0] == kernels[1] == 8 * 24 * 24
  dropped = Mlp(dropout=0.5)
  params = drawn(dropped, x)
  assert np.array_equal(dropped.apply(params, x), Mlp().apply(params, x))
  assert not np.array_equal(dropped.apply(params, x, train=True, rngs={"dropout": KEY}), Mlp().apply(params, x))


def test_sincos_puts_the_last_axis_first_and_has_sines_first():
  table = sincos((3, 5), 8)
  assert table.shape == (15, 8)
  row = table[2 * 5 + 4]  # h = 2, w = 4
  omega = np.array([1.0, 0.01])
  expected = np.concatenate([np.sin(4 * omega), np.cos(4 * omega), np.sin(2 * omega), np.cos(2 * omega)])
  assert np.abs(row - expected).max() < 1e-6
  with pytest.raises(UserError, match="4 divides, not 10"):
    sincos((3, 5), 10)


def test_time_frequencies_are_cosines_first():
  f = frequencies(jnp.array([0.0, 3.0]), 4)
  assert np.allclose(f[0], [1, 1, 0, 0])
  assert np.allclose(f[1], [np.cos(3), np.cos(0.03), np.sin(3), np.sin(0.03)], atol=1e-6)


def test_time_embedding_is_an_mlp_of_the_frequencies_of_1000_t():
  module, t = TimeEmbedding(6, count=8), jnp.array([0.0, 0.25, 1.0])
  y, params = first_run(module, t)
  assert y.shape == (3, 6)
  one, two = (params["params"][name] for name in ("fc1", "fc2"))
  h = np.asarray(frequencies(jnp.array([0.0, 250.0, 1000.0]), 8)) @ one["kernel"] + one["bias"]
  np.testing.assert_allclose(y, h / (1 + np.exp(-h)) @ two["kernel"] + two["bias"], rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("shape", [(12, 3), (4, 8, 3), (2, 4, 6, 3)])
def test_patchify_and_back(shape: tuple[int, ...]):
  x = normal(2, *shape)
  tokens, grid = patchify(x, 2)
  assert tokens.shape == (2, np.prod(grid), 2 ** len(grid) * 3)
  assert np.array_equal(unpatchify(tokens, grid, 2), x)
  if len(grid) == 2:  # (p q c): the token's second entry of channels is the cell to the right
    assert np.array_equal(tokens[0, 1, 3:6], x[0, 0, 3])
  with pytest.raises(UserError, match="patch 5 does not divide"):
    patchify(x, 5)


def test_constrain_is_a_no_op_without_a_mesh_and_marks_the_batch_with_one():
  x = jnp.ones((4, 3, 2))
  assert constrain(x) is x
  axes = (AxisType.Auto,) * 3
  with jax.set_mesh(jax.make_mesh((1, 1, 1), ("data", "fsdp", "tensor"), axis_types=axes)):
    assert '{"data", "fsdp"}' in jax.jit(constrain).lower(x).as_text()
  with jax.set_mesh(jax.make_mesh((1,), ("other",), axis_types=axes[:1])):
    assert constrain(x) is x


@pytest.mark.parametrize(("size", "stride", "shape"), [(3, 1, (6, 5)), (3, 2, (7, 6)), (5, 2, (8, 9)), (3, 2, (9,))])
def test_depthwise_is_the_grouped_convolution(size, stride, shape):
  """Both ways to compute it, and their gradients; "SAME" puts the odd row of padding at the end."""
  rng = np.random.default_rng(0)
  x = jnp.asarray(rng.normal(size=(2, *shape, 4)), jnp.float32)
  module = DepthwiseConv(size, stride)
  reference = nn.Conv(4, (size,) * len(shape), stride, feature_group_count=4)
  variables = reference.init(jax.random.key(0), x)
  assert jax.tree.map(jnp.shape, module.init(jax.random.key(0), x)) == jax.tree.map(jnp.shape, variables)
  np.testing.assert_allclose(module.apply(variables, x), reference.apply(variables, x), atol=1e-5)
  weights = jnp.asarray(rng.normal(size=reference.apply(variables, x).shape), jnp.float32)
  grads = [jax.grad(lambda x, m=m: (m.apply(variables, x) * weights).sum())(x) for m in (module, reference)]
  np.testing.assert_allclose(*grads, atol=1e-5)


@pytest.mark.parametrize("shape", [(5,), (4, 7), (2, 3, 4)])
def test_upsample_is_the_convolution_of_the_nearest_neighbours(shape):
  """Values and both gradients; 4, 16, 64 products an element of x where the plain way has 6, 36, 216."""
  x, axes = normal(2, *shape, 4), len(shape)
  params = drawn(Upsample(6), x)
  up = lambda params, x: Upsample(6).apply(params, x)
  plain = lambda params, x: Conv(6).apply({"params": params["params"]["conv"]}, nearest(x))
  expected = plain(params, x)
  assert up(params, x).shape == expected.shape == (2, *(2 * n for n in shape), 6)
  assert np.abs(up(params, x) - expected).max() < 1e-5
  weights = normal(*expected.shape, seed=1)
  mine, theirs = (jax.grad(lambda p, x, f=f: (f(p, x) * weights).sum(), (0, 1))(params, x) for f in (up, plain))
  for a, b in zip(jax.tree.leaves(mine), jax.tree.leaves(theirs), strict=True):
    assert np.abs(a - b).max() < 1e-4 * (1 + np.abs(b).max())
  inside = jnp.zeros((1, *(64,) * axes, 4)) if axes < 3 else jnp.zeros((1, 16, 16, 16, 4))
  params = {"params": {"conv": {"kernel": jnp.zeros((3,) * axes + (4, 6)), "bias": jnp.zeros(6)}}}
  few, many = (flops.count(jax.make_jaxpr(f)(params, inside))["float32"] for f in (up, plain))
  assert few / many == pytest.approx((4 / 6) ** axes, rel=0.05)  # padding is no work


@pytest.mark.parametrize("shape", [(5,), (4, 7), (2, 3, 4)])
def test_four_taps_double_by_the_transposed_convolution(shape):
  """Values and both gradients are jax's own, whose products with zeros are left out: a quarter of two axes'."""
  x, axes = normal(2, *shape, 4), len(shape)
  module = Conv(6, 4, double=True)
  params = drawn(module, x)

  def plain(params, x):
    kernel = params["params"]["kernel"]
    letters = "DHW"[3 - axes :]
    numbers = ("N" + letters + "C", letters + "IO", "N" + letters + "C")
    y = jax.lax.conv_transpose(x, kernel, (2,) * axes, "SAME", dimension_numbers=numbers)
    return y + params["params"]["bias"]

  expected, weights = plain(params, x), normal(2, *(2 * n for n in shape), 6, seed=1)
  assert module.apply(params, x).shape == expected.shape == weights.shape
  np.testing.assert_allclose(module.apply(params, x), expected, atol=1e-5)
  mine, theirs = (
    jax.grad(lambda p, x, f=f: (f(p, x) * weights).sum(), (0, 1))(params, x) for f in (module.apply, plain)
  )
  jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, atol=1e-4), mine, theirs)


@pytest.mark.parametrize("shape", [(6,), (4, 8), (2, 4, 6)])
def test_pooled_is_flax_max_pool(shape):
  x, axes = normal(2, *shape, 3), len(shape)
  weights = normal(2, *(n // 2 for n in shape), 3, seed=1)
  theirs = lambda x: nn.max_pool(x, (2,) * axes, (2,) * axes)
  np.testing.assert_array_equal(pooled(x), theirs(x))
  mine, other = (jax.grad(lambda x, f=f: (f(x) * weights).sum())(x) for f in (pooled, theirs))
  np.testing.assert_array_equal(mine, other)


@pytest.mark.parametrize(("sizes", "features"), [((3, 1), 4), ((1, 3, 3, 3), 6)])
def test_residual_is_its_formula(sizes, features):
  x = normal(2, 5, 4, 4)
  module = Residual(features, 3, sizes, gain=0.25)
  params = drawn(module, x)
  h = x
  for k, size in enumerate(sizes, 1):
    h = Conv(features if k == len(sizes) else 3, size).apply({"params": params["params"][f"conv{k}"]}, nn.relu(h))
  if (short := params["params"].get("shortcut")) is not None:
    x = x @ short["kernel"][0, 0] + short["bias"]
  assert (short is None) == (features == 4)
  np.testing.assert_allclose(module.apply(params, normal(2, 5, 4, 4)), x + 0.25 * h, atol=1e-5)


@pytest.mark.parametrize("shape", [(3,), (2, 3), (2, 4, 3), (2, 2, 2, 3)])
def test_dense_is_linens_and_a_product_of_two_matrices(shape):
  x = normal(*shape)
  params = drawn(nn.Dense(5), x)
  assert np.abs(Dense(5).apply(params, x) - nn.Dense(5).apply(params, x)).max() < 1e-6
  program = jax.make_jaxpr(jax.grad(lambda p: Dense(5).apply(p, x).sum()))(params)
  products = [eqn for eqn in program.eqns if eqn.primitive.name == "dot_general"]
  assert products and all(v.aval.ndim == 2 for eqn in products for v in eqn.invars)
  point = Conv(5, size=1)
  if len(shape) > 2:
    kernel = params["params"]["kernel"].reshape(*(1,) * (len(shape) - 2), 3, 5)
    made = point.apply({"params": {**params["params"], "kernel": kernel}}, x)
    assert np.abs(made - Dense(5).apply(params, x)).max() < 1e-6


def test_one_query_of_keys_by_head_is_attention():
  q, k, v = normal(2, 1, 3, 4), normal(2, 6, 3, 4, seed=1), normal(2, 6, 3, 4, seed=2)
  seen = jnp.arange(6) < 4
  mine = attend_one(q, jnp.swapaxes(k, 1, 2), jnp.swapaxes(v, 1, 2), seen)
  assert np.abs(mine - attend(q, k, v, mask=seen[None, None, None])).max() < 1e-6
  assert np.abs(mine - attend(q, k[:, :4], v[:, :4])).max() < 1e-6


CUDNN = {  # (length, width of a head, dtype, mask) -> whether cuDNN takes it
  (256, 64, "bfloat16", ""): True,
  (256, 64, "bfloat16", "keys"): True,
  (256, 64, "bfloat16", "causal"): True,
  (256, 64, "float32", ""): False,
  (256, 60, "bfloat16", ""): False,
}


@pytest.mark.parametrize("case", CUDNN)
def test_attention_on_nvidias_gpus_is_cudnns_where_it_takes_the_shapes(case, monkeypatch):
  """Lowered for CUDA, which needs no GPU; that cuDNN is there is pretended."""
  attention._cudnn_takes.cache_clear()
  monkeypatch.setattr("jax._src.cudnn.fused_attention_stablehlo.check_cudnn_version", lambda: 91000)
  length, width, dtype, mask = case
  x = jax.ShapeDtypeStruct((2, length, 3, width), dtype)
  seen = jnp.ones((2, 1, 1, length), bool) if mask == "keys" else None

  def total(q, k, v):
    return attend(q, k, v, mask=seen, causal=mask == "causal").astype(jnp.float32).sum()

  traced = jax.jit(jax.grad(total, (0, 1, 2))).trace(x, x, x)
  for platform in ("cuda", "tpu", "cpu"):
    text = traced.lower(lowering_platforms=(platform,)).as_text()
    assert text.count("__cudnn$fmha") == (2 if CUDNN[case] and platform == "cuda" else 0)  # forward and back
    assert ("exponential" in text) == (not CUDNN[case] or platform != "cuda")
  attention._cudnn_takes.cache_clear()


def test_what_is_traced_for_another_platform_is_known():
  """A mesh of a TPU's devices, as the planner has one: linear layers keep their axes there."""
  x, kernel = jnp.zeros((2, 3, 4)), jnp.zeros((4, 5))

  def axes() -> list[int]:
    products = [eqn for eqn in jax.make_jaxpr(product)(x, kernel).eqns if eqn.primitive.name == "dot_general"]
    return [v.aval.ndim for eqn in products for v in eqn.invars]

  assert on_cpu() and axes() == [2, 2]
  here = jax.sharding.use_abstract_mesh(jax.make_mesh((1,), ("data",)).abstract_mesh)
  for context, cpu in ((here, True), (micro.on_tpu(), False)):
    with context:
      assert on_cpu() == cpu and axes() == ([2, 2] if cpu else [3, 2])
