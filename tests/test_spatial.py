"""What U-Nets are made of beside convolutions: attention to a context, GEGLU, blocks that halve and double."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from latents.nn.attention import Attention, ContextAttention
from latents.nn.conv import Downsample, ResBlock, halved, nearest
from latents.nn.convolve import convolve
from latents.nn.mlp import GEGLU
from latents.nn.spatial import SpatialTransformer
from tests.test_nn import drawn, first_run, normal


def test_attention_without_a_context_is_self_attention_without_biases():
  x = normal(2, 5, 8)
  params = drawn(ContextAttention(2), x)["params"]
  other = {"qkv": {**params["qkv"], "bias": jnp.zeros(24)}, "out": params["out"]}
  np.testing.assert_allclose(
    ContextAttention(2).apply({"params": params}, x), Attention(2).apply({"params": other}, x), atol=1e-5
  )


def test_attention_to_one_token_is_its_value_whatever_is_asked():
  x, context = normal(2, 5, 8), normal(2, 3, 6, seed=1)
  params = drawn(ContextAttention(2), x, context)
  y = ContextAttention(2).apply(params, x, context, jnp.array([[False, True, False]] * 2))
  value = context[:, 1] @ params["params"]["kv"]["kernel"][:, 8:]
  wanted = value @ params["params"]["out"]["kernel"] + params["params"]["out"]["bias"]
  np.testing.assert_allclose(y, jnp.broadcast_to(wanted[:, None], y.shape), atol=1e-5)


def test_geglu_is_its_formula():
  x = normal(3, 4)
  params = drawn(GEGLU(2.0), x)["params"]
  h, gate = np.split(np.asarray(x @ params["up"]["kernel"] + params["up"]["bias"]), 2, -1)
  wanted = (h * gate * jax.scipy.stats.norm.cdf(gate)) @ params["down"]["kernel"] + params["down"]["bias"]
  np.testing.assert_allclose(GEGLU(2.0).apply({"params": params}, x), wanted, atol=1e-5)


@pytest.mark.parametrize("linear", [False, True])
def test_a_spatial_transformer_begins_as_the_identity_and_linear_is_the_same_function(linear):
  x, context = normal(2, 4, 3, 8), normal(2, 3, 6, seed=1)
  model = SpatialTransformer(2, 2, linear)
  y, params = first_run(model, x, context)
  np.testing.assert_array_equal(y, x)
  params = drawn(SpatialTransformer(2, 2), x, context)["params"]
  found = SpatialTransformer(2, 2).apply({"params": params}, x, context)
  flat = {name: {**params[name], "kernel": params[name]["kernel"][0, 0]} for name in ("in", "out")}
  again = SpatialTransformer(2, 2, linear=True).apply({"params": {**params, **flat}}, x, context)
  np.testing.assert_allclose(found, again, atol=1e-5)
  order = np.array([2, 0, 1])  # the context is a set
  np.testing.assert_allclose(SpatialTransformer(2, 2).apply({"params": params}, x, context[:, order]), found, atol=1e-4)


def test_blocks_between_levels_resize_what_they_add_to():
  x = normal(2, 4, 6, 4)
  for resize, wanted in (("halve", halved(x)), ("double", nearest(x))):
    y = first_run(ResBlock(zero=True, resize=resize), x)[0]
    np.testing.assert_array_equal(y, wanted)
  np.testing.assert_allclose(halved(x)[:, 1, 2], x[:, 2:4, 4:6].mean((1, 2)), atol=1e-6)


def test_downsample_pads_both_ends():
  x = normal(1, 4, 6, 2)
  params = drawn(Downsample(both=True), x)
  conv = params["params"]["conv"]
  wanted = convolve(jnp.pad(x, [(0, 0), (1, 1), (1, 1), (0, 0)]), conv["kernel"], 1, "VALID")[:, ::2, ::2]
  np.testing.assert_allclose(Downsample(both=True).apply(params, x), wanted + conv["bias"], atol=1e-5)
