"""Large pictures in tiles: equal to the whole where the network is local, near it and said so where it is not."""

import dataclasses
import tarfile
from typing import Any

import flax.linen as nn
import jax
import numpy as np
import pytest
from PIL import Image

from latents import main
from latents.autoencoders import Autoencoder
from latents.backbones import UNet
from latents.bottlenecks import EMAVQ, FSQ, KL, LayerNormLatent, NoBottleneck
from latents.decoders import ConvDecoder, DCDecoder, FlowDecoder, IdentityDecoder, ViTDecoder
from latents.encoders import ConvEncoder, DCEncoder, Downsample, IdentityEncoder, QueryEncoder, ViTEncoder
from latents.errors import UserError
from latents.train.build_step import abstract_autoencoder
from latents.use import tiles
from latents.use.model import Model
from tests import micro
from tests.test_former_runs import FIXTURE


def random(tree: Any) -> Any:
  rng = np.random.default_rng(0)
  return jax.tree.map(lambda a: (0.3 * rng.normal(size=a.shape)).astype(a.dtype), tree)


def loaded(encoder: nn.Module, bottleneck: nn.Module, decoder: nn.Module, size: int = 16) -> Model:
  made = micro.experiment(gan=False)
  data = dataclasses.replace(made.stage1.data, size=size)
  model = Autoencoder(encoder=encoder, bottleneck=bottleneck, decoder=decoder)  # pyright: ignore[reportArgumentType]
  one = dataclasses.replace(made.stage1, model=model, data=data)
  made = dataclasses.replace(made, stage1=one, stage2=None)
  arrays = random(abstract_autoencoder(made))
  arrays["std"] = 0.5 + np.abs(arrays["std"])
  return Model(made, micro.one_device(), arrays, None, "")


def picture(height: int, width: int, count: int = 1) -> np.ndarray:
  """Smooth, and not alike everywhere."""
  rng = np.random.default_rng(1)
  rows, columns = np.mgrid[:height, :width]
  x = sum(rng.normal() * np.sin(rows * a + columns * b + rng.uniform(0, 6)) for a, b in rng.uniform(-0.5, 0.5, (8, 2)))
  x = x + 0.3 * rng.normal(size=(count, height, width))
  return np.tanh(0.7 * x)[..., None].astype(np.float32)


def dc(factor: int = 4) -> tuple[DCEncoder, DCDecoder]:
  """Convolutions, and norms of each position alone."""
  widths, depths = {2: ((8, 8), (1, 1)), 4: ((4, 8, 8), (0, 1, 1))}[factor]
  norms: Any = ("rms",) * len(widths)
  decoder = DCDecoder(widths, depths, 1, (), norms=norms, acts=("silu",) * len(widths))
  return DCEncoder(widths, depths, 4, ()), decoder


LOCAL = {
  "none f4": (lambda: (dc()[0], NoBottleneck(), dc()[1]), 4),
  "kl f2": (lambda: (dc(2)[0], KL(dim=4), dc(2)[1]), 2),
  "fsq f4": (lambda: (dc()[0], FSQ(levels=(5, 4, 3, 3)), dc()[1]), 4),
  "vq f2": (lambda: (dc(2)[0], EMAVQ(vocab=16, dim=4), dc(2)[1]), 2),
  "layer norm f4": (lambda: (dc()[0], LayerNormLatent(), dc()[1]), 4),
  "identity": (lambda: (IdentityEncoder(), NoBottleneck(), IdentityDecoder()), 1),
}


@pytest.mark.parametrize("name", LOCAL)
@pytest.mark.parametrize("shape", [(72, 100), (44, 140), (88, 64)], ids=str)
def test_a_local_network_in_tiles_gives_what_it_gives_of_the_whole(name, shape):
  make, factor = LOCAL[name]
  model, x = loaded(*make()), picture(*shape)
  tiled = model.tiled(64)
  assert set(tiled.factor) == {factor}
  whole, found = model.encode(x), tiled.encode(x)
  np.testing.assert_allclose(found.z, whole.z, atol=2e-5)
  if whole.codes is not None:
    np.testing.assert_array_equal(found.codes, whole.codes)
    assert len(np.unique(whole.codes)) > 3
  np.testing.assert_allclose(tiled.decode(whole), model.decode(whole), atol=2e-5)
  assert tiled.error == {"encoder": 0.0, "decoder": 0.0} and not tiled.note()
  assert np.abs(model.decode(whole)).max() > 0.2


def test_rows_are_tiled_alike_and_uint8_is_taken():
  encoder, decoder = dc(2)
  model = loaded(encoder, NoBottleneck(), decoder)
  x = np.round(127.5 * (picture(70, 66, 3) + 1)).astype(np.uint8)
  found, whole = model.tiled(64).reconstruct(x), model.reconstruct(x)
  np.testing.assert_allclose(found, whole, atol=2e-5)


def test_the_reach_is_the_networks_own():
  def reach(encoder: nn.Module, size: tuple[int, int], cut=(True, True)) -> tiles.Reach | None:
    variables = encoder.init(jax.random.key(0), np.zeros((1, 16, 16, 1), np.float32), train=False)
    call = jax.jit(lambda x: encoder.apply(variables, x, train=False))
    factor = getattr(encoder, "stride", None) or getattr(encoder, "factor", 1)
    part = tiles.Part("encoder", lambda x: np.asarray(call(x)), size, (factor,) * 2, (1, 1))
    return tiles.found(part, cut, 1)

  class Shifted(nn.Module):
    """A position reads the one 2 rows above it and the one 3 columns to its right, weighted by 0."""

    @nn.compact
    def __call__(self, x, *, train):
      return jax.numpy.roll(x, 2, 1) + 0.0 * jax.numpy.roll(x, -3, 2)

  class Placed(nn.Module):
    """Reads its own position alone, and what place that is."""

    @nn.compact
    def __call__(self, x, *, train):
      return x + jax.numpy.arange(x.shape[2])[:, None]

  assert reach(Shifted(), (16, 16)) == tiles.Reach((2, 0), (0, 3))
  assert reach(Shifted(), (16, 16), (False, True)) == tiles.Reach((0, 0), (0, 3))
  assert reach(Downsample(factor=4), (4, 4)) == tiles.Reach((0, 0), (0, 0))
  assert reach(Placed(), (16, 16)) is None  # it moves nothing, but its tiles are not those of the whole
  assert reach(ConvEncoder(ch=4, mult=(1, 1), blocks=1, out=2, mid_attention=False), (16, 16)) is None  # group norm
  # f2: level 0 conv_in, one block of two 3-tap convolutions at 2 pixels a cell; stride 2; one block and conv_out at 1
  found = reach(dc(2)[0], (16, 16))
  assert found is not None and found.before == found.after == (5, 5)
  with pytest.raises(UserError, match=r"a tile of 16 pixels is too small: .* 10 pixels before and 10 pixels after; "
                                      r"from 26 pixels on"):  # fmt: skip
    reach(dc(2)[0], (8, 8))
  assert reach(dc(2)[0], (13, 13)) == found


NOT_LOCAL = {
  "group norm f4": lambda: (
    ConvEncoder(ch=8, mult=(1, 1, 1), blocks=1, out=8, mid_attention=False), KL(dim=4),
    ConvDecoder(ch=8, mult=(1, 1, 1), blocks=1, channels=1, mid_attention=False),
  ),
  "attention f2": lambda: (
    ConvEncoder(ch=8, mult=(1, 1), blocks=1, out=8), KL(dim=4), ConvDecoder(ch=8, mult=(1, 1), blocks=1, channels=1),
  ),
  "vit": lambda: (
    ViTEncoder(width=16, depth=1, heads=2, patch=4, out=8), KL(dim=4, projected=False),
    ViTDecoder(width=16, depth=1, heads=2, patch=4, channels=1),
  ),
}  # fmt: skip


# what blended tiles of 48 px are off from the untiled 72 x 100 px, RMS over the standard deviation, of random weights
OFF = {"group norm f4": (0.11, 0.17), "attention f2": (0.02, 0.11), "vit": (0.24, 0.06)}


@pytest.mark.parametrize("name", NOT_LOCAL)
def test_other_networks_are_blended_and_the_error_is_told(name):
  model, x = loaded(*NOT_LOCAL[name]()), picture(72, 100)
  tiled = model.tiled(48)
  off = tiled.measured(x)
  for part, most in zip(("encoder", "decoder"), OFF[name], strict=True):
    assert 0.5 * most < off[part] < most
    assert 0.2 * off[part] < tiled.error[part] < 6 * off[part]
  wider = model.tiled(64).measured(x)
  assert wider["encoder"] < off["encoder"] or name == "vit"  # its positions count from the tile's corner
  assert f"the encoder's by {100 * tiled.error['encoder']:.3g} %" in tiled.note()


def test_blending_keeps_what_all_tiles_agree_on_and_ramps_linearly_between():
  part = tiles.Part("", lambda x: x, (16, 16), (1, 1), (1, 1))
  x = np.random.default_rng(0).normal(size=(2, 37, 50, 3)).astype(np.float32)
  found, error = tiles.joined(part, x, None)
  np.testing.assert_allclose(found, x, atol=1e-6)
  assert error < 1e-6

  seen = iter(range(10))
  steps = tiles.Part("", lambda x: np.full_like(x, next(seen)), (16, 4), (1, 1), (1, 1))
  found, error = tiles.joined(steps, np.zeros((1, 28, 4, 1), np.float32), None)  # tiles begin at 0 and 12
  np.testing.assert_allclose(found[0, 11:17, 0, 0], [0, 0, 0.25, 0.75, 1, 1])
  assert error == pytest.approx(np.sqrt(0.5) / found.std(), rel=1e-5)


def test_tiles_are_of_one_shape_and_no_larger_than_asked_for():
  shapes = set()
  model = loaded(*NOT_LOCAL["group norm f4"]())
  tiled = model.tiled(48)
  encode = tiled._encode
  tiled._encode = lambda arrays, x: (shapes.add(x.shape), encode(arrays, x))[1]  # pyright: ignore
  tiled.encode(picture(100, 72, 2))
  tiled.encode(picture(200, 148))
  assert shapes == {(1, 48, 48, 1)} | {(1, 192, 4, 1), (1, 4, 192, 1)}  # the strips that look for its reach


def test_a_tile_as_large_as_the_picture_is_the_untiled_model():
  model, x = loaded(*NOT_LOCAL["attention f2"]()), picture(48, 40)
  tiled = model.tiled(48)
  np.testing.assert_array_equal(tiled.encode(x).z, model.encode(x).z)
  np.testing.assert_array_equal(tiled.reconstruct(x), model.reconstruct(x))
  assert not tiled.note()


def test_what_has_no_tiles_is_one_line():
  model = loaded(*NOT_LOCAL["group norm f4"]())
  for side, line in ((42, "no multiple of the model's factor 4: take 40 or 44"), (0, "take 4"), (-8, "take 4"),
                     (2, "take 4"), (16.5, "must be a whole number")):  # fmt: skip
    with pytest.raises(UserError, match=line):
      model.tiled(side)
  with pytest.raises(UserError, match="a picture of 66x50 does not divide by the model's factor 4"):
    model.tiled(16).encode(picture(50, 66))
  query = QueryEncoder(width=8, depth=1, heads=2, patch=4, tokens=6, out=4)
  with pytest.raises(UserError, match="no grid"):
    loaded(query, NoBottleneck(), IdentityDecoder()).tiled(16)
  unet = UNet(8, mult=(1, 1), blocks=1, out=1)
  generative = loaded(IdentityEncoder(), NoBottleneck(), FlowDecoder(unet, stride=1, channels=1))
  z = generative.tiled(16).encode(picture(32, 32)).z
  with pytest.raises(UserError, match="FlowDecoder draws the whole picture from noise"):
    generative.tiled(16).decode(z)
  assert generative.tiled(32).decode(z).shape == (1, 32, 32, 1)


@pytest.fixture
def finished(tmp_path):
  with tarfile.open(FIXTURE) as packed:
    packed.extractall(tmp_path, filter="data")
  return tmp_path / "finished"


def test_commands_take_tiles(finished, tmp_path, capsys):
  pixels = (127.5 * (picture(50, 83)[0, ..., 0] + 1)).astype(np.uint8)
  Image.fromarray(pixels).save(tmp_path / "a.png")
  word = ["reconstruct", str(finished), str(tmp_path / "a.png"), "--out"]
  assert main.main([*word, str(tmp_path / "tiled"), "--tile", "32"]) == 0
  assert main.main([*word, str(tmp_path / "large"), "--tile", "400"]) == 0
  assert main.main([*word, str(tmp_path / "whole")]) == 0
  first, large, whole = capsys.readouterr().out.splitlines()
  assert "80x48" in first and "not local, so tiles are blended" in first and "blended" not in large + whole
  near, same, told = (np.asarray(Image.open(tmp_path / n / "a.png"), float) for n in ("tiled", "large", "whole"))
  np.testing.assert_array_equal(same, told)
  assert 0 < np.abs(near - told).mean() < 20
  assert main.main([*word, str(tmp_path / "none"), "--tile", "30"]) == 2
  assert "a tile of 30 pixels is no multiple" in capsys.readouterr().err and not (tmp_path / "none").exists()

  assert main.main(["encode", str(finished), "--out", str(tmp_path / "x"), "--split", "test"]) == 0
  assert main.main(["encode", str(finished), "--out", str(tmp_path / "y"), "--split", "test", "--tile", "8"]) == 0
  assert main.main(["encode", str(finished), "--out", str(tmp_path / "z"), "--split", "test", "--tile", "16"]) == 0
  assert "blended" in capsys.readouterr().out
  x, y, z = (np.load(tmp_path / n / "test" / "stored.npy") for n in "xyz")
  np.testing.assert_allclose(z, x, atol=1e-4)
  assert y.shape == x.shape and 0 < np.abs(y - x).mean() < x.std()

  for name, more in (("p.npz", []), ("q.npz", ["--tile", "16"]), ("r.npz", ["--tile", "8"])):
    assert main.main(["sample", str(finished), "--number", "3", "--out", str(tmp_path / name), *more]) == 0
  p, q, r = (np.load(tmp_path / n)["x"].astype(float) for n in ("p.npz", "q.npz", "r.npz"))
  np.testing.assert_array_equal(p, q)
  assert r.shape == p.shape and 0 < np.abs(r - p).mean() < 60
