"""The networks of VQ-VAE, VQ-VAE-2 and DALL-E's dVAE: sizes and grids as published, and what each promises."""

import math

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from latents.autoencoders import Autoencoder
from latents.bottlenecks import EMAVQ, Gumbel, Hierarchy
from latents.command import overrides
from latents.decoders import DVAEDecoder, LogitLaplaceDecoder, StridedDecoder
from latents.encoders import DVAEEncoder, StridedEncoder
from latents.encoders.dvae import inward
from latents.errors import UserError
from tests.declared import FOLDER
from tests.test_bottlenecks import rng_normal
from tests.test_encoders_decoders import count, started

KEY = jax.random.key(0)
RNGS = {"params": KEY, "bottleneck": KEY, "decoder": KEY}


def traced(model: Autoencoder, *shape: int):
  """(latent, x_hat, variables) of a model for signals of that shape, as shapes."""
  x = jax.ShapeDtypeStruct((1, *shape), jnp.float32)
  (latent, decoded), variables = jax.eval_shape(lambda x: model.init_with_output(RNGS, x, train=True), x)
  assert decoded.x.shape == x.shape
  return latent, variables


def conv(size: int, c: int, f: int) -> int:
  return size * size * c * f + f


def block(width: int, units: int) -> int:
  return conv(3, width, units) + conv(1, units, width)


def half(channels: int, widths: tuple[int, ...], hidden: int, units: int, blocks: int = 2) -> int:
  """Parameters of a `StridedEncoder` with a convolution before its blocks."""
  steps = zip((channels, *widths), widths, strict=False)
  return sum(conv(4, c, f) for c, f in steps) + conv(3, widths[-1], hidden) + blocks * block(hidden, units)


def back(dim: int, widths: tuple[int, ...], hidden: int, units: int, blocks: int = 2) -> int:
  """Parameters of a `StridedDecoder`; widths end in the channels."""
  steps = zip((hidden, *widths), widths, strict=False)
  return conv(3, dim, hidden) + blocks * block(hidden, units) + sum(conv(4, c, f) for c, f in steps)


# -- VQ-VAE


def test_vq_vae_has_the_layers_of_its_section():
  model = Autoencoder(StridedEncoder(), EMAVQ(vocab=512, dim=256, project=False), StridedDecoder())
  latent, variables = traced(model, 128, 128, 3)
  assert latent.codes.shape == (1, 32, 32)
  assert 128 * 128 * 3 * 8 == 393_216 and 32 * 32 * math.log2(512) == 9216  # 42.7 times fewer bits
  sides = variables["params"]
  assert count(sides["encoder"]) == conv(4, 3, 256) + conv(4, 256, 256) + 2 * block(256, 256) == 2_373_120
  assert count(sides["decoder"]) == conv(3, 256, 256) + 2 * block(256, 256) + conv(4, 256, 256) + conv(4, 256, 3)


def test_vq_vae_moves_with_its_grid_and_its_blocks_end_positive():
  encoder = StridedEncoder(widths=(4, 6), hidden=6, blocks=1, units=3, relu=True)
  x = rng_normal(1, 64, 16, 1)
  variables = started(encoder, x, train=False)
  h, moved = (encoder.apply(variables, a, train=False) for a in (x, jnp.roll(x, 4, 1)))
  np.testing.assert_allclose(moved[:, 6:-6], h[:, 5:-7], atol=1e-6)
  assert h.min() == 0 and h.max() > 0
  with pytest.raises(UserError, match="12x10 does not divide by the encoder's stride 4"):
    encoder.init(KEY, jnp.zeros((1, 12, 10, 1)), train=False)


# -- VQ-VAE-2


def grids(side: int, widths: tuple[int, ...], above: int, dim: int = 64, units: int = 64) -> Autoencoder:
  """VQ-VAE-2 with `above` grids over the bottom one, whose encoder has `widths`."""
  part = {"hidden": 128, "units": units}
  code = EMAVQ(vocab=512, dim=dim)
  top, up = code, dim
  for k in reversed(range(above)):
    top = Hierarchy(
      down=StridedEncoder((64,), **part),
      top=top,
      back=StridedDecoder(widths=(), channels=dim, **part),
      bottom=code.clone(),
      grid=(side >> len(widths) + k,) * 2,
      up=up,
    )
    up += dim
  return Autoencoder(StridedEncoder(widths, **part), top, StridedDecoder(widths=widths[-2::-1], **part))


def test_vq_vae_2_has_two_grids_at_256():
  latent, variables = traced(grids(256, (64, 128), 1), 256, 256, 3)
  assert latent.codes.shape == (1, 32 * 32 + 64 * 64) and latent.z.shape == (1, 64, 64, 128)
  p = variables["params"]
  assert count(p["encoder"]) == half(3, (64, 128), 128, 64)
  two = p["bottleneck"]
  assert count(two["down"]) == half(128, (64,), 128, 64) and count(two["back"]) == back(64, (64,), 128, 64)
  assert count(two["upsample"]) == conv(4, 64, 64)
  assert count((two["top"], two["bottom"])) == conv(1, 128, 64) + conv(1, 192, 64)
  assert count(p["decoder"]) == back(128, (64, 3), 128, 64)


def test_vq_vae_2_has_three_grids_at_1024():
  model = grids(1024, (64, 128, 128), 2)
  latent, variables = traced(model, 1024, 1024, 3)
  assert model.bottleneck.layout((128, 128)) == ((32, 32), (64, 64), (128, 128))
  assert latent.codes.shape == (1, 32**2 + 64**2 + 128**2) and latent.z.shape == (1, 128, 128, 192)
  two = variables["params"]["bottleneck"]
  assert count(two["upsample"]) == conv(4, 128, 128) and count(two["top"]["upsample"]) == conv(4, 64, 64)


@pytest.mark.parametrize("above", [1, 2])
def test_upsampled_grids_are_embedded_as_they_are_encoded(above):
  model = grids(32, (4, 4), above, dim=3, units=4)
  x = rng_normal(2, 32, 32, 3)
  variables = started(model, x, train=False)
  variables["codebook"] = jax.tree.map(lambda a: rng_normal(*a.shape), variables["codebook"])
  latent = model.apply(variables, x, method="encode")
  inside = {kind: tree["bottleneck"] for kind, tree in variables.items()}
  np.testing.assert_allclose(model.bottleneck.apply(inside, latent.codes, method="embed"), latent.z, atol=1e-6)
  assert set(model.bottleneck.apply(inside, latent, method="variants")) == {"", "top alone"}


def test_grids_that_do_not_meet_are_one_line():
  down, code = StridedEncoder((4, 4), blocks=0), EMAVQ(vocab=4, dim=2)
  back = StridedDecoder(4, (4,), blocks=0, channels=2)

  def refused(match: str, **fields):
    made = Hierarchy(**{"down": down, "top": code, "back": back, "bottom": code.clone(), "grid": (8, 8), **fields})
    with pytest.raises(UserError, match=match):
      jax.eval_shape(lambda: made.init(KEY, jnp.zeros((1, 8, 8, 4)), train=False))

  refused("the bottom's is 4 times as fine", up=2)
  refused(r"the top to a grid of \(4, 4\), but the features are \(8, 8\)", back=back.clone(widths=()))
  refused("declared for a grid of", grid=(4, 4))


# -- dVAE


def dvae(ch: int = 256, vocab: int = 8192, dim: int = 128) -> Autoencoder:
  return Autoencoder(
    DVAEEncoder(ch=ch, out=vocab), Gumbel(vocab=vocab, dim=dim, project=False), LogitLaplaceDecoder(DVAEDecoder(ch=ch))
  )


def test_dvae_has_the_size_of_the_release():
  """The counts are those of the package's own networks (tests/parity/test_code_networks.py counts them there)."""
  latent, variables = traced(dvae(), 256, 256, 3)
  assert latent.codes.shape == (1, 32, 32) and latent.z.shape == (1, 32, 32, 128)
  p = variables["params"]
  assert count(p["encoder"]) == 53_786_240
  assert count((p["bottleneck"], p["decoder"])) == 43_829_766


def test_dvae_starts_near_its_shortcuts_and_with_normal_kernels():
  """Every kernel has the variance 1 / fan_in, and a block's path is 1/64 of what it would be."""
  encoder, x = DVAEEncoder(ch=64, out=16), jnp.tanh(rng_normal(1, 16, 16, 3))
  params = jax.jit(lambda: encoder.init(KEY, x, train=False))()["params"]
  kernel = np.asarray(params["group4_block1"]["conv1"]["kernel"]).ravel()
  assert kernel.std() * math.sqrt(9 * 256) == pytest.approx(1, abs=0.01)
  assert (np.abs(kernel) > 2 * kernel.std()).mean() == pytest.approx(0.0455, abs=0.003)  # not cut off
  np.testing.assert_allclose(inward(jnp.array([-1.0, 0.0, 1.0])), [0.1, 0.5, 0.9], atol=1e-7)

  def path(blocks: int) -> float:
    module = encoder.clone(blocks=blocks)
    _, seen = module.apply({"params": params}, x, train=False, capture_intermediates=True, mutable="intermediates")
    stem, first = (seen["intermediates"][name]["__call__"][0] for name in ("conv_in", "group1_block1"))
    return float(jnp.std(first - stem))

  assert path(1) / path(2) == pytest.approx(64 / 16, rel=1e-4)


# -- the experiments


@pytest.mark.parametrize(
  ("name", "side", "sizes"),
  [("vq_vae", 128, (32**2,)), ("vq_vae2", 256, (32**2, 64**2)), ("dalle_dvae", 256, (32**2,))],
)
def test_paper_scale_has_the_grids_and_vocabularies_of_the_papers(name, side, sizes):
  one = overrides.load_file(FOLDER / "codes" / f"{name}.py").experiment("paper").stage1
  assert one.data.shape == (side, side, 3)
  latent, variables = traced(one.model, side, side, 3)
  grid = latent.z.shape[1:-1]
  assert tuple(math.prod(g) for g in one.model.bottleneck.layout(grid)) == sizes
  assert math.prod(latent.codes.shape) == sum(sizes)
  vocab = one.model.bottleneck.vocab
  assert vocab == {"vq_vae": 512, "vq_vae2": (512, 512), "dalle_dvae": 8192}[name]
  if name == "dalle_dvae":
    assert count(variables["params"]) == 97_616_006
    assert one.losses["kl"].weight == pytest.approx(6.6 / 192, rel=1e-12)
    factor = lambda step: float(one.losses["kl"].counted(jnp.float32(1.0), jnp.int32(step)))
    np.testing.assert_allclose([factor(s) for s in (0, 2_500, 5_000, 10**6)], [0, 0.5, 1, 1], atol=1e-6)
    rate = one.optimizer.rate(one.steps)
    np.testing.assert_allclose([rate(s) for s in (0, 1_200_000, 3_000_000)], [1e-4, 1.25e-6, 1.25e-6], rtol=1e-5)
