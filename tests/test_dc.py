"""The identities of DC-AE: its shortcuts undo each other, and without convolutions it is a linear map."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from latents.command import overrides
from latents.declare import maker
from latents.decoders import DCDecoder
from latents.encoders import DCEncoder
from latents.errors import UserError
from latents.nn.efficient_vit import Down, LinearAttention, PlainBlock, Up
from latents.nn.norm import RunningBatchNorm
from latents.nn.shuffle import average, channel_to_space, duplicate, space_to_channel
from latents.train import build_step, partition
from latents.types import Latent
from tests.declared import FOLDER, make_data
from tests.test_bottlenecks import rng_normal
from tests.test_encoders_decoders import KEY, started


def bare(module, *args, keep=(), **kwargs):
  """Variables of a module whose convolutions give nothing, but those of the parts in `keep`."""
  made = started(module, *args, **kwargs)
  return jax.tree_util.tree_map_with_path(
    lambda path, a: a if path[1].key in keep else jnp.zeros_like(a) if path[0].key == "params" else a, made
  )


@pytest.mark.parametrize("shape", [(6, 3), (4, 6, 3), (2, 4, 6, 5)])
def test_space_to_channel_is_a_permutation(shape):
  x = rng_normal(2, *shape)
  wide = space_to_channel(x)
  assert wide.shape == (2, *(n // 2 for n in shape[:-1]), shape[-1] * 2 ** (len(shape) - 1))
  np.testing.assert_array_equal(channel_to_space(wide), x)


def test_the_order_of_channels_is_torchs():
  x = jnp.arange(2 * 2 * 3).reshape(1, 2, 2, 3)  # channel c at row i, column j is 6 i + 3 j + c
  assert space_to_channel(x).ravel().tolist() == [0, 3, 6, 9, 1, 4, 7, 10, 2, 5, 8, 11]
  assert duplicate(jnp.array([1, 2]), 6).tolist() == [1, 1, 1, 2, 2, 2]  # copies side by side, not tiled
  assert average(jnp.array([1.0, 3.0, 5.0, 7.0]), 2).tolist() == [2.0, 6.0]


@pytest.mark.parametrize(("low", "high"), [(8, 8), (16, 8), (16, 4), (32, 8)])
def test_down_undoes_up_exactly(low, high):
  """Repeat, shuffle, unshuffle, average: the identity to the bit where as many are averaged as a power of two."""
  x = rng_normal(2, 3, 5, low)
  up, down = Up(high), Down(low)
  wide = up.apply(bare(up, x), x)
  assert wide.shape == (2, 6, 10, high)
  np.testing.assert_array_equal(down.apply(bare(down, wide), wide), x)


@pytest.mark.parametrize(("axes", "low", "high"), [(1, 16, 8), (1, 8, 8), (3, 16, 8), (3, 8, 2)])
def test_down_undoes_up_on_any_number_of_axes(axes, low, high):
  x = rng_normal(2, *(3, 2, 4)[:axes], low)
  up, down = Up(high), Down(low)
  wide = up.apply(bare(up, x), x)
  assert wide.shape == (2, *(2 * n for n in x.shape[1:-1]), high)
  np.testing.assert_array_equal(down.apply(bare(down, wide), wide), x)


def test_without_convolutions_it_is_averaging_and_duplicating():
  fields = {"widths": (4, 8, 16), "attention": (2,), "head": 4}
  encoder = DCEncoder(depths=(0, 2, 1), out=4, **fields)
  x = jnp.tanh(rng_normal(2, 16, 8, 3))
  e = bare(encoder, x, train=False, keep=("conv_in",))
  first = Down(8, shortcut=False).apply({"params": e["params"]["conv_in"]}, x)
  wanted = average(average(space_to_channel(first), 16), 4)
  z = encoder.apply(e, x, train=False)
  np.testing.assert_allclose(z, wanted, atol=1e-6)

  seen = DCDecoder(depths=(1, 1, 1), norms=("rms",) * 3, acts=("silu",) * 3, **fields)
  d = bare(seen, Latent(z=z), x, train=False, keep=("conv_out", "norm_out"))
  wide = channel_to_space(duplicate(channel_to_space(duplicate(duplicate(z, 16), 32)), 16))
  h = wide * jax.lax.rsqrt(jnp.square(wide).mean(-1, keepdims=True) + 1e-5)
  h = jax.nn.relu(h * d["params"]["norm_out"]["scale"] + d["params"]["norm_out"]["bias"])
  one = d["params"]["conv_out"]
  wanted = jax.lax.conv_general_dilated(h, one["kernel"], (1, 1), "SAME", dimension_numbers=("NHWC", "HWIO", "NHWC"))
  np.testing.assert_allclose(seen.apply(d, Latent(z=z), method="sample"), wanted + one["bias"], atol=1e-5)


def test_linear_attention_is_the_quadratic_one():
  layer, x = LinearAttention(head=4, scales=(3,)), rng_normal(2, 3, 5, 8)
  variables = started(layer, x, train=False)
  p = variables["params"]
  qkv = x @ p["qkv"]["kernel"]
  more = jax.lax.conv_general_dilated(
    qkv, p["scale0_depthwise"]["kernel"], (1, 1), "SAME", dimension_numbers=("NHWC", "HWIO", "NHWC"),
    feature_group_count=24,
  )  # fmt: skip
  mixed = [more[..., g : g + 4] @ p["scale0_mix"]["kernel"][:, g : g + 4] for g in range(0, 24, 4)]
  heads = jnp.concatenate([qkv, *mixed], -1).reshape(2, 15, -1, 12)
  q, k, v = jax.nn.relu(heads[..., :4]), jax.nn.relu(heads[..., 4:8]), heads[..., 8:]
  scores = jnp.einsum("bnhi,bmhi->bhnm", q, k)
  scores = scores / (scores.sum(-1, keepdims=True) + 1e-15)
  h = jnp.einsum("bhnm,bmhi->bnhi", scores, v).reshape(2, 3, 5, 16) @ p["out"]["kernel"]
  h = h * jax.lax.rsqrt(jnp.square(h).mean(-1, keepdims=True) + 1e-5) * p["norm"]["scale"] + p["norm"]["bias"]
  np.testing.assert_allclose(layer.apply(variables, x, train=True), x + h, atol=1e-5)


def test_batch_norm_learns_its_statistics_only_where_they_may_move():
  block, x = PlainBlock("batch", "relu"), rng_normal(8, 4, 4, 3)
  variables = block.init(KEY, x, train=True)
  assert float(variables["batch_stats"]["norm"]["count"][0]) == 0.0
  _, once = block.apply(variables, x, train=True, mutable=["batch_stats"])
  frozen = block.apply({**variables, **once}, x, train=True)  # not mutable: in inference mode though it is trained
  np.testing.assert_array_equal(frozen, block.apply({**variables, **once}, x, train=False))

  norm = RunningBatchNorm()
  state = norm.init(KEY, x, train=True)
  seen = [rng_normal(16, 2, 3, seed=i) + i for i in range(12)]
  for a in seen:
    state |= norm.apply(state, a, train=True, mutable=["batch_stats"])[1]
  means = np.array([a.mean((0, 1)) for a in seen])
  wanted = means[:10].mean(0)  # the first ten count alike, then at the rate
  for m in means[10:]:
    wanted = wanted + 0.1 * (m - wanted)
  np.testing.assert_allclose(state["batch_stats"]["mean"], wanted, rtol=1e-5)


def test_errors_are_one_line():
  x = jnp.zeros((1, 16, 16, 3))
  for module, words in (
    (DCEncoder((8, 8, 8), (1, 1), 4, ()), "3 widths and 2 depths"),
    (DCEncoder((8, 8, 8), (1, 0, 1), 4, ()), "only level 0 may have no blocks"),
    (DCEncoder((8, 8), (1, 1), 3, ()), "8 channels cannot be averaged in groups to 3"),
    (DCEncoder((8, 8), (1, 1), 4, (1,), head=3), "do not divide into heads of 3"),
    (DCEncoder((8, 6), (1, 1), 2, ()), "multiples of 4 channels, not 6"),
    (DCEncoder((8, 8, 8, 8, 8, 8), (1,) * 6, 4, ()), "16x16 does not divide by the encoder's stride 32"),
  ):
    with pytest.raises(UserError, match=words):
      module.init(KEY, x, train=False)
  with pytest.raises(UserError, match="6 norms and 6 acts: one of each for 2 levels"):
    DCDecoder((8, 8), (1, 1), attention=()).init(KEY, Latent(z=x), x, train=False)


def test_the_phases_train_what_they_say(tmp_path):
  """Phase 2 the layers at the latent, 3 the decoder's head; batch norm's statistics move in phase 1 alone."""
  made = overrides.load_file(FOLDER / "images" / "dc_ae.py").experiment("tiny", data=f"folder:{pictures(tmp_path)}")
  third = made.stage1
  second = third.start[0].stage
  first = second.start[0].stage
  assert not first.start and second.data.size == 2 * first.data.size == 2 * third.data.size
  assert maker(third) is second  # the latents are those of phase 2: a prior is shared by phases 2 and 3
  moving = {}
  for stage in (first, second, third):
    variables = build_step.abstract_variables(dataclasses.replace(made, stage1=stage, stage2=None), 1)
    state, _ = partition.split(variables, stage.trained)
    moving[stage.steps] = {"/".join(path[:2]) for path in partition.flat(state["params"])}, set(state)
  parts, collections = moving[first.steps]
  assert collections == {"params", "batch_stats"} and "encoder/level1_part0" in parts
  assert moving[second.steps] == ({"encoder/conv_out", "decoder/conv_in"}, {"params"})
  assert moving[third.steps] == ({"decoder/norm_out", "decoder/conv_out"}, {"params"})


def pictures(folder):
  return make_data(folder) / "pictures"
