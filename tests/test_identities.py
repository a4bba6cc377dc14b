"""Shifts and crops of every convolutional part: exact away from the borders, with norms frozen."""

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from latents.encoders import Downsample
from latents.nn.norm import GroupNorm
from latents.types import Latent
from tests.members.decoders import DECODERS
from tests.members.encoders import ENCODERS
from tests.test_bottlenecks import rng_normal
from tests.test_encoders_decoders import started


def named(members):
  return pytest.mark.parametrize(("make", "shape"), [m[1:] for m in members], ids=[m[0] for m in members])


def frozen_norms(call, args, kwargs, context):
  """Every group norm has the mean 0 and deviation 1 of other examples: what is left is scale and shift."""
  if not isinstance(context.module, GroupNorm) or context.method_name != "__call__":
    return call(*args, **kwargs)
  params = context.module.variables["params"]
  return args[0] * params["scale"] + params["bias"]


def local(part):
  """The part without its attention."""
  without = {"attention": (), "mid_attention": False}
  return part.clone(**{name: value for name, value in without.items() if hasattr(part, name)})


def moves_with_its_signal(call, x, down: int, up: int) -> None:
  """call is local: a shift by `down` along the first axis is one by `up`, and a crop gives the crop, but at the
  borders. How far the borders are seen is measured: what one element touches."""

  @jax.jit
  def run(x):
    with nn.intercept_methods(frozen_norms):
      return call(x)

  n, y = x.shape[1] // down, run(x)
  assert y.shape[1] == n * up
  middle = n // 2
  one = x.at[:, middle * down : (middle + 1) * down].add(1.0)
  touched = np.flatnonzero(np.asarray(jnp.abs(run(one) - y).reshape(len(x), n * up, -1).max((0, 2)) > 0)) // up
  edge = 2 + max(middle - touched[0], touched[-1] - middle)
  cut, size = 4, 2e-5 * float(jnp.abs(y).max())
  assert 2 * edge + 2 * cut + 2 < n, (edge, n)
  moved = run(jnp.roll(x, down, 1))
  np.testing.assert_allclose(moved[:, (edge + 1) * up : -edge * up], y[:, edge * up : -(edge + 1) * up], atol=size)
  part = run(x[:, cut * down : -cut * down])
  inner = slice((cut + edge) * up, -(cut + edge) * up)
  np.testing.assert_allclose(part[:, edge * up : -edge * up], y[:, inner], atol=size)
  assert float(jnp.abs(y[:, inner][:, 1:] - y[:, inner][:, :-1]).max()) > 100 * size  # it is no constant


GLOBAL = (
  "query",
  "query remat",
  "vit",
  "vit tanh",
  "gain",
  "gained",
  "flow",
  "flow augmented",
  "diffwave",
  "wavegrad",
  "equivariant",
)  # look at the whole signal, or wrap


@named([m for m in ENCODERS if m[0] not in GLOBAL])
def test_every_local_encoder_moves_with_its_signal(make, shape):
  encoder = local(make())
  f = encoder.factor if isinstance(encoder, Downsample) else getattr(encoder, "stride", 1)
  x = rng_normal(1, 64 * f, *shape[1:])
  variables = started(encoder, x, train=False)
  moves_with_its_signal(lambda x: encoder.apply(variables, x, train=False), x, f, 1)


@pytest.mark.parametrize(
  ("make", "latent", "shape"), [m[1:] for m in DECODERS if m[0] not in GLOBAL], ids=[
    m[0] for m in DECODERS if m[0] not in GLOBAL
  ],
)  # fmt: skip
def test_every_local_decoder_moves_with_its_latent(make, latent, shape):
  decoder = local(make())
  z = rng_normal(1, 64, *latent[1:])
  variables = started(decoder, Latent(z=z), None, train=False)
  run = lambda z: decoder.apply(variables, Latent(z=z), method="sample")
  moves_with_its_signal(run, z, 1, shape[0] // latent[0])
