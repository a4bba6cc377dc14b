"""Every encoder and decoder keeps the contract; each one's own promises (sizes, strides, locality, prefixes)."""

import math

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from latents.backbones import UNet
from latents.bottlenecks import KL, NestedDropout, NoBottleneck
from latents.command import overrides
from latents.decoders import ConvDecoder, FlowDecoder, IdentityDecoder, QueryDecoder, ViTDecoder, WaveDecoder
from latents.encoders import ConvEncoder, IdentityEncoder, QueryEncoder, ViTEncoder, WaveEncoder
from latents.errors import UserError
from latents.nn.norm import GroupNorm
from latents.types import Encoded, Latent
from tests.declared import FOLDER
from tests.members.decoders import DECODERS
from tests.members.encoders import ENCODERS
from tests.test_bottlenecks import fields_are_json, rng_normal

KEY = jax.random.key(0)
RNGS = {"params": KEY, "decoder": KEY}


def started(module, *args, **kwargs):
  """Random variables without a run of init (nothing is compiled, and zero-initialised kernels are not zero)."""
  abstract = jax.eval_shape(lambda: module.init(RNGS, *args, **kwargs))
  rng = np.random.default_rng(0)

  def fill(path, leaf):
    centre = 1.0 if path[-1].key in ("scale", "alpha", "var") else 0.0
    spread = 0.1 if leaf.ndim < 2 else 1.0 / math.sqrt(math.prod(leaf.shape[:-1]))
    return jnp.asarray(centre + spread * rng.normal(size=leaf.shape), leaf.dtype)

  return jax.tree_util.tree_map_with_path(fill, abstract)


def features(made):
  """h of what an encoder gives."""
  return made.h if isinstance(made, Encoded) else made


@pytest.mark.parametrize(("name", "make", "shape"), ENCODERS, ids=[m[0] for m in ENCODERS])
def test_encoder_contract(name, make, shape):
  module, x = make(), jnp.tanh(rng_normal(2, *shape))
  variables = started(module, x, train=True)

  @jax.jit
  def both(x):
    h = features(module.apply(variables, x, train=False))
    weights = rng_normal(*h.shape, seed=5)
    return h, jax.grad(lambda x: (features(module.apply(variables, x, train=True)) * weights).sum())(x)

  h, gradient = both(x)
  assert h.ndim >= 3 and h.shape[0] == 2 and np.isfinite(h).all()
  if hasattr(module, "stride"):
    assert h.shape[1:-1] == tuple(n // module.stride for n in shape[:-1])
  np.testing.assert_array_equal(h, both(x)[0])
  assert float(jnp.abs(gradient).reshape(2, -1).max(-1).min()) > 0
  assert fields_are_json(module)


@pytest.mark.parametrize(("name", "make", "latent", "shape"), DECODERS, ids=[m[0] for m in DECODERS])
def test_decoder_contract(name, make, latent, shape):
  module, x = make(), jnp.tanh(rng_normal(2, *shape))
  z = rng_normal(2, *latent, seed=2)
  side = {"gain": jnp.array([[2.0], [0.5]])}  # read by those that say so
  variables = started(module, Latent(z=z, side=side), x, train=True)

  def apply(z, **kwargs):
    return module.apply(variables, Latent(z=z, side=side), rngs={"decoder": KEY}, **kwargs)

  @jax.jit
  def all_of(z):
    weights = rng_normal(2, *shape, seed=5)

    def objective(z):
      decoded = apply(z, x=x, train=True)
      return (decoded.x * weights).sum() + sum(decoded.terms.values()), decoded

    gradient, decoded = jax.grad(objective, has_aux=True)(z)
    return decoded, gradient, apply(z, steps=module.variants[0][1], method="sample")

  decoded, gradient, sample = all_of(z)
  for out in (decoded.x, sample):
    assert out.shape == x.shape and out.dtype == jnp.float32 and np.isfinite(out).all()
  assert all(np.shape(v) == () for v in decoded.terms.values())
  assert float(jnp.abs(gradient).reshape(2, -1).max(-1).min()) > 0
  params = variables.get("params", {})
  if module.last:  # the path names a kernel that makes the signal's channels
    for part in module.last:
      params = params[part]
    assert params.shape[-1] % shape[-1] == 0
  else:
    assert not jax.tree.leaves(params)
  assert len({name for name, _ in module.variants}) == len(module.variants) > 0
  assert fields_are_json(module)


# -- conv


def count(tree):
  return sum(math.prod(a.shape) for a in jax.tree.leaves(tree))


@pytest.mark.parametrize(
  ("mult", "dim", "parts", "total"),
  [((1, 2, 4, 4), 4, (34_163_592, 72, 49_490_179 + 20), 83_653_863), ((1, 2, 4), 3, None, 55_312_063)],
)
def test_ldm_autoencoders_have_the_published_size(mult, dim, parts, total):
  encoder, bottleneck, decoder = ConvEncoder(mult=mult, out=2 * dim), KL(dim), ConvDecoder(mult=mult)
  x = jax.ShapeDtypeStruct((1, 32, 32, 3), jnp.float32)
  h, e = jax.eval_shape(lambda x: encoder.init_with_output(KEY, x, train=False), x)
  latent, b = jax.eval_shape(lambda h: bottleneck.init_with_output(KEY, h, train=False), h)
  d = jax.eval_shape(lambda latent: decoder.init(KEY, latent, x, train=False), latent)
  assert count((e, b, d)) == total
  assert parts is None or (count(e), count(b), count(d)) == parts


@pytest.mark.parametrize(("factor", "total"), [(4, 55_312_063), (8, 83_653_863), (16, None), (32, None)])
def test_ldm_kl_takes_the_factor_of_the_releases(factor, total):
  made = overrides.load_file(FOLDER / "images" / "ldm_kl.py").experiment("paper", factor=factor)
  model, tsr = made.stage1.model, {4: 16, 8: 48, 16: 48, 32: 48}[factor]
  x = jax.ShapeDtypeStruct((1, 256, 256, 3), jnp.float32)
  (latent, decoded), variables = jax.eval_shape(
    lambda x: model.init_with_output({**RNGS, "bottleneck": KEY}, x, train=True), x
  )
  assert decoded.x.shape == x.shape and math.prod(x.shape) == tsr * math.prod(latent.z.shape)
  np.testing.assert_allclose(made.stage1.losses["kl"].weight, 1e-6 / tsr, rtol=1e-12)
  assert total is None or count(variables["params"]) == total


def test_conv_errors_are_one_line():
  with pytest.raises(UserError, match="12x10 does not divide by the encoder's stride 4"):
    ConvEncoder(ch=8, mult=(1, 1, 1), blocks=1).init(KEY, jnp.zeros((1, 12, 10, 3)), train=False)
  with pytest.raises(UserError, match="30 does not divide by the encoder's stride 8"):
    WaveEncoder(ch=4, strides=(2, 4)).init(KEY, jnp.zeros((1, 30, 1)), train=False)
  with pytest.raises(UserError, match="patch 4"):
    QueryEncoder(width=8, depth=1, heads=1, patch=4).init(KEY, jnp.zeros((1, 6, 8, 1)), train=False)


def test_conv_takes_any_grid_and_moves_with_it():
  """The same weights on another grid; without attention and away from borders a shift by f is one cell."""
  encoder = ConvEncoder(ch=8, mult=(1, 2, 2), blocks=1, out=2, mid_attention=False)
  x = jnp.tile(rng_normal(1, 8, 8, 1), (1, 128, 1, 1))  # so long that GroupNorm's statistics hardly see the borders
  variables = started(encoder, x[:, :16, :16], train=False)
  encode = jax.jit(lambda x: encoder.apply(variables, x, train=False))
  h, moved = encode(x), encode(jnp.roll(x, 4, 1))
  assert h.shape == (1, 256, 2, 2)
  far = np.abs(h[:, 127:131] - h[:, 128:132]).max()  # neighbours differ
  np.testing.assert_allclose(moved[:, 128:132], h[:, 127:131], atol=0.05 * far)


def frozen_norms(call, args, kwargs, context):
  """Every group norm has the mean 0 and deviation 1 of other examples: what is left is scale and shift."""
  if not isinstance(context.module, GroupNorm) or context.method_name != "__call__":
    return call(*args, **kwargs)
  params = context.module.variables["params"]
  return args[0] * params["scale"] + params["bias"]


@pytest.mark.parametrize("axes", [1, 2])
def test_with_norms_frozen_shifts_and_crops_are_exact_away_from_the_borders(axes):
  """A shift by f is one cell, a crop of the signal gives the crop of the latent, a crop of the latent that of the
  picture; nearer than the receptive field the border is seen."""
  f, long = 4, (160, *(16,) * (axes - 1))
  encoder = ConvEncoder(ch=8, mult=(1, 2, 2), blocks=1, out=4, mid_attention=False)
  decoder = ConvDecoder(ch=8, mult=(1, 2, 2), blocks=1, channels=2, mid_attention=False)
  x = rng_normal(1, *long, 2)
  ours = started(encoder, x, train=False)
  theirs = started(decoder, Latent(z=rng_normal(1, *(n // f for n in long), 4)), x, train=False)

  @jax.jit
  def encode(x):
    with nn.intercept_methods(frozen_norms):
      return encoder.apply(ours, x, train=False)

  @jax.jit
  def decode(z):
    with nn.intercept_methods(frozen_norms):
      return decoder.apply(theirs, Latent(z=z), method="sample")

  h, size = encode(x), 1e-5 * float(jnp.abs(encode(x)).max())
  edge = 11  # cells: the receptive field is 77 pixels, see below
  np.testing.assert_allclose(encode(jnp.roll(x, f, 1))[:, edge + 1 : -edge], h[:, edge : -edge - 1], atol=size)
  np.testing.assert_allclose(encode(x[:, 16:-16])[:, edge:-edge], h[:, 4 + edge : -4 - edge], atol=size)
  assert float(jnp.abs(encode(x[:, 16:-16])[:, :2] - h[:, 4:6]).max()) > 10 * size
  seen = jax.jit(jax.grad(lambda x: encode(x)[0, 20].sum()))(x)
  rows = np.flatnonzero(np.abs(np.asarray(seen)[0].reshape(long[0], -1)).max(1))
  # cells 13..27 after seven convolutions, 26..56 and 24..58 a level up, 48..118 and 45..121 in pixels
  assert (rows[0], rows[-1]) == (45, 121)
  y, size = decode(h), 1e-5 * float(jnp.abs(decode(h)).max())
  edge = 14
  np.testing.assert_allclose(
    decode(jnp.roll(h, 1, 1))[:, f * (edge + 1) : -f * edge], y[:, f * edge : -f * (edge + 1)], atol=size
  )
  np.testing.assert_allclose(
    decode(h[:, 4:-4])[:, f * edge : -f * edge], y[:, f * (4 + edge) : -f * (4 + edge)], atol=size
  )


@pytest.mark.parametrize("zero", [False, True])
def test_zero_makes_the_residual_blocks_of_both_sides_start_as_the_identity(zero):
  encoder = ConvEncoder(ch=8, mult=(1, 1), blocks=1, out=4, mid_attention=False, zero=zero)
  decoder = ConvDecoder(ch=8, mult=(1, 1), blocks=1, mid_attention=False, zero=zero)
  x = rng_normal(1, 8, 8, 3)
  for module, args in ((encoder, (x,)), (decoder, (Latent(z=rng_normal(1, 4, 4, 4)), x))):
    variables = module.init(RNGS, *args, train=False)
    _, seen = module.apply(variables, *args, train=False, capture_intermediates=True, mutable=["intermediates"])
    out = {name: value["__call__"][0] for name, value in seen["intermediates"].items() if name != "__call__"}
    first, second = out["mid_block0"], out["mid_block1"]
    assert np.array_equal(first, second) == zero


def test_remat_and_dtype_change_no_parameter_and_hardly_the_values():
  x = rng_normal(1, 8, 8, 3)
  plain = ConvEncoder(ch=8, mult=(1, 2), blocks=1, out=4)
  variables = started(plain, x, train=False)

  def value(module):
    return jax.jit(jax.value_and_grad(lambda v: module.apply(v, x, train=True).std()))(variables)

  (loss, gradient), (loss2, gradient2) = value(plain), value(plain.clone(remat=True))
  np.testing.assert_allclose(loss, loss2, rtol=1e-6)
  jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, atol=1e-5), gradient, gradient2)
  half = plain.clone(dtype="bfloat16")
  assert all(v.dtype == jnp.float32 for v in jax.tree.leaves(jax.eval_shape(lambda: half.init(KEY, x, train=False))))
  rough, fine = (jax.jit(lambda v, m=m: m.apply(v, x, train=False))(variables) for m in (half, plain))
  assert rough.dtype == jnp.bfloat16
  np.testing.assert_allclose(rough.astype(np.float32), fine, atol=0.15)


# -- identity


def test_identity_parts_hand_the_signal_through():
  x = rng_normal(2, 4, 4, 3)
  latent = NoBottleneck().apply({}, IdentityEncoder().apply({}, x, train=True), train=True)
  np.testing.assert_array_equal(IdentityDecoder().apply({}, latent, x, train=True).x, x)
  np.testing.assert_array_equal(IdentityDecoder().apply({}, latent, method="sample"), x)


# -- query


def query_decoder():
  module = QueryDecoder(grid=(2, 3), width=16, depth=2, heads=2, patch=4, channels=1)
  z = rng_normal(3, 8, 5)
  return module, started(module, Latent(z=z), None, train=False), z


def test_masked_tokens_cannot_influence_the_output():
  module, variables, z = query_decoder()
  mask = jnp.arange(8) < jnp.array([[1], [4], [8]])
  decode = jax.jit(lambda z, mask: module.apply(variables, Latent(z=z, mask=mask), method="sample"))
  x = decode(z, mask)
  for junk in (1e3 * rng_normal(*z.shape, seed=9), jnp.nan):
    np.testing.assert_array_equal(decode(jnp.where(mask[..., None], z, junk), mask), x)
  gradient = jax.jit(jax.grad(lambda z: jnp.square(decode(z, mask)).sum()))(z)
  np.testing.assert_array_equal(gradient[~np.asarray(mask)], 0.0)
  assert (np.abs(gradient[np.asarray(mask)]).max(-1) > 0).all()
  # the same as a shorter sequence (One-D-Piece truncates): no trace of the dropped keys in the softmax
  short = {"params": {**variables["params"], "token_position": variables["params"]["token_position"][:4]}}
  np.testing.assert_allclose(module.apply(short, Latent(z=z[:, :4]), method="sample")[1], x[1], atol=1e-5)
  whole = module.apply(variables, Latent(z=z), method="sample")
  np.testing.assert_allclose(decode(z, jnp.ones_like(mask)), whole, atol=1e-5)


def test_query_encoder_sees_the_whole_signal_and_names_a_wrong_grid():
  module, x = QueryEncoder(width=16, depth=1, heads=2, patch=4, tokens=3, out=2), rng_normal(1, 8, 8, 1)
  variables = started(module, x, train=False)
  influence = jax.jit(jax.jacrev(lambda x: module.apply(variables, x, train=False)[0].sum(-1)))(x)
  assert influence.shape == (3, 1, 8, 8, 1) and (np.abs(influence) > 0).all()
  with pytest.raises(UserError, match="4 learned positions"):
    module.apply(variables, rng_normal(1, 8, 12, 1), train=False)
  decoder, variables, z = query_decoder()
  with pytest.raises(UserError, match="8 learned positions"):
    decoder.apply(variables, Latent(z=z[:, :3]), method="sample")
  with pytest.raises(UserError, match="sequence of tokens"):
    decoder.apply(variables, Latent(z=z[:, None]), method="sample")


def test_nested_dropout_makes_prefixes_that_a_query_decoder_reads():
  module, variables, z = query_decoder()
  nested = NestedDropout(NoBottleneck())
  for latent in nested.apply({}, nested.apply({}, z, train=False), method="variants").values():
    assert module.apply(variables, latent, method="sample").shape == (3, 8, 12, 1)


# -- wave


def test_wave_is_local_for_odd_and_even_strides():
  encoder, decoder = WaveEncoder(ch=2, strides=(2, 3), out=3), WaveDecoder(ch=2, strides=(2, 3))
  x = rng_normal(1, 600, 1)
  variables = started(encoder, x, train=False)
  encode = jax.jit(lambda x: encoder.apply(variables, x, train=False))
  h, moved = encode(x), encode(jnp.roll(x, 6, 1))
  assert h.shape == (1, 100, 3)
  np.testing.assert_allclose(moved[:, 31:71], h[:, 30:70], atol=1e-5)  # fully convolutional: shift by f = one frame
  touched = np.abs(encode(x.at[:, 300].add(1.0)) - h).max((0, 2)).nonzero()[0]
  assert touched.min() > 50 - 26 and touched.max() < 50 + 26 and abs((touched.min() + touched.max()) / 2 - 50) <= 1
  variables_d = started(decoder, Latent(z=h), None, train=False)
  decode = jax.jit(lambda h: decoder.apply(variables_d, Latent(z=h), method="sample"))
  y = decode(h)
  assert y.shape == x.shape
  touched = np.abs(decode(h.at[:, 50].add(1.0)) - y).max((0, 2)).nonzero()[0]
  assert abs((touched.min() + touched.max()) / 2 - 302.5) <= 3  # frame 50 is samples 300..305: centred on them


def test_snake_is_the_papers_and_positive_slope():
  from latents.encoders.wave import Activate

  x = jnp.linspace(-3, 3, 7)[None, :, None]
  y = Activate().apply({"params": {"alpha": jnp.array([2.0])}}, x)
  np.testing.assert_allclose(y, x + np.sin(2 * np.asarray(x)) ** 2 / 2, rtol=1e-5)


# -- flow


class Truth(UNet):
  """A backbone that knows the data: v = eps - x0 for x0 = z, exactly."""

  def __call__(self, x, t, cond, *, train=False):
    noisy, z = jnp.split(x, 2, -1)
    t = t.reshape(-1, 1, 1, 1)
    return (noisy - z) / t  # x_tau = (1 - tau) z + tau eps


def test_flow_decoder_with_the_true_velocity_has_no_loss_and_returns_the_data():
  decoder = FlowDecoder(Truth(4), stride=2, channels=1)
  z = rng_normal(3, 4, 4, 1)
  x = jnp.repeat(jnp.repeat(z, 2, 1), 2, 2)
  decoded = decoder.apply({}, Latent(z=z), x, train=True, rngs={"decoder": KEY})
  assert float(decoded.terms["flow"]) < 1e-6
  np.testing.assert_allclose(decoded.x, x, atol=1e-3)
  for steps in (1, 5, None):
    sample = decoder.apply({}, Latent(z=z), steps=steps, method="sample", rngs={"decoder": KEY})
    np.testing.assert_allclose(sample, x, atol=1e-5)


def test_flow_decoder_samples_do_not_depend_on_the_batch():
  decoder = FlowDecoder(UNet(4, (1,), 1, out=1), stride=2, channels=1)
  z, x = rng_normal(3, 2, 2, 2), jnp.zeros((3, 4, 4, 1))
  variables = started(decoder, Latent(z=z), x, train=True)
  sample = jax.jit(lambda z: decoder.apply(variables, Latent(z=z), steps=3, method="sample", rngs={"decoder": KEY}))
  np.testing.assert_allclose(sample(z)[:2], sample(z[:2]), atol=1e-5)
  same = sample(jnp.broadcast_to(z[:1], z.shape))
  assert float(jnp.abs(same[0] - same[1]).max()) > 0.1  # but samples differ from one another


def test_flow_decoder_names_wrong_shapes():
  z, x = jnp.zeros((1, 2, 2, 2)), jnp.zeros((1, 4, 4, 1))
  for backbone, stride, message in ((UNet(4, (1, 1), 1), 2, "out=1"), (UNet(4, (1, 1), 1, out=1), 4, "stride=4")):
    decoder = FlowDecoder(backbone, stride=stride, channels=1)
    with pytest.raises(UserError, match=message):
      jax.eval_shape(lambda: decoder.init(RNGS, Latent(z=z), x, train=True))  # noqa: B023


# -- vit


def test_vit_parts_have_the_size_of_their_layers_and_take_any_grid():
  """S-B/16 by hand, and the same weights on another grid; E = tokens * c."""
  width, patch, c = 768, 16, 16
  block = 4 * width * width + 4 * width + 8 * width * width + 5 * width + 4 * width  # attention, MLP, two norms
  encoder, decoder = ViTEncoder(depth=6, out=2 * c), ViTDecoder(depth=12)
  x = jax.ShapeDtypeStruct((1, 256, 256, 3), jnp.float32)
  h, e = jax.eval_shape(lambda x: encoder.init_with_output(KEY, x, train=False), x)
  z = jax.ShapeDtypeStruct((1, 16, 16, c), jnp.float32)
  d = jax.eval_shape(lambda z: decoder.init(KEY, Latent(z=z), None, train=False), z)
  pixels = 3 * patch * patch
  assert h.shape == (1, 16, 16, 2 * c) and math.prod(z.shape) == 4096
  assert count(e) == (pixels + 1) * width + 6 * block + 4 * width + (width + 1) * 2 * c
  assert count(d) == (c + 1) * width + 12 * block + 4 * width + (width + 1) * pixels
  small = ViTEncoder(width=16, depth=1, heads=2, patch=4, out=3)
  variables = started(small, jnp.zeros((1, 8, 8, 1)), train=False)
  assert small.apply(variables, jnp.ones((1, 12, 20, 1)), train=False).shape == (1, 3, 5, 3)


@pytest.mark.parametrize(("width", "depth", "heads", "published"), [(768, 12, 12, 91e6), (1280, 32, 16, 599e6)])
def test_vit_vqgans_sizes_are_the_published_ones(width, depth, heads, published):
  """Table 1 of arXiv:2110.04627 by hand: heads of 64 numbers, a tanh layer of 4 widths; positions here are fixed."""
  inner, patch = 64 * heads, 8
  size = {"width": width, "depth": depth, "heads": heads, "patch": patch, "hidden": 4 * width, "head": 64}
  block = (width + 1) * 3 * inner + (inner + 1) * width + 8 * width**2 + 5 * width + 4 * width
  x = jax.ShapeDtypeStruct((1, 256, 256, 3), jnp.float32)
  h, e = jax.eval_shape(lambda x: ViTEncoder(out=width, **size).init_with_output(KEY, x, train=False), x)
  assert h.shape == (1, 32, 32, width)
  head = (width + 1) * 4 * width + (4 * width + 1) * width
  assert count(e) == (3 * patch**2 + 1) * width + depth * block + 4 * width + head
  assert count(e) + 1024 * width == pytest.approx(published, rel=0.006)
