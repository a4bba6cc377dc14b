"""Pictures that are no squares, and grey ones: from every source through both stages, scores and the report."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from PIL import Image

from latents import main
from latents.command.overrides import build, find_file, override
from latents.data import Digits, Folder, Photos, Shapes, Video, batches, evaluation_batches, source
from latents.data.images import covering, fits, read_image, smaller
from latents.data.source import Broken, sides
from latents.declare import addresses, dumps, loads
from latents.decoders import ConvDecoder, Equivariant
from latents.decoders.equivariant import fill, resize
from latents.errors import UserError
from latents.runs import run
from latents.types import Latent
from tests import micro

SIZE = (16, 24)


def paint(folder, number=20, size=(60, 40), grey=False):
  folder.mkdir(parents=True)
  rng = np.random.default_rng(0)
  for i in range(number):
    x = rng.integers(0, 256, (size[1], size[0], 3)).astype(np.uint8)
    Image.fromarray(x[..., 0] if grey else x).save(folder / f"{i}.png")
  return folder


def clip(path):
  frames = [Image.fromarray(np.full((20, 30, 3), 40 * i, np.uint8)) for i in range(5)]
  frames[0].save(path, save_all=True, append_images=frames[1:])


def sources(tmp_path):
  paint(tmp_path / "pictures")
  (tmp_path / "clips").mkdir()
  for i in range(12):
    clip(tmp_path / "clips" / f"{i}.gif")
  pictures = str(tmp_path / "pictures")
  return {
    "digits": (Digits(size=SIZE), (*SIZE, 1)),
    "shapes": (Shapes(size=SIZE, count=20, test=10), (*SIZE, 3)),
    "photos": (Photos(size=SIZE, count=20), (*SIZE, 3)),
    "folder": (Folder(path=pictures, size=SIZE), (*SIZE, 3)),
    "crops": (Folder(path=pictures, size=SIZE, channels=1, resize=False), (*SIZE, 1)),
    "video": (Video(path=str(tmp_path / "clips"), size=SIZE, frames=3), (3, *SIZE, 3)),
  }


def test_every_source_gives_them(tmp_path):
  for name, (made, shape) in sources(tmp_path).items():
    assert made.shape == shape, name
    with batches(made, split="train", batch=6, seed=0) as found:
      assert next(found)["x"].shape == (6, *shape), name
    with evaluation_batches(made, split="test", batch=4, limit=4) as found:
      assert next(found)["x"].shape == (4, *shape), name


def test_a_pair_of_equal_sides_is_the_square(tmp_path):
  for name, (made, _) in sources(tmp_path).items():
    square, pair = (dataclasses.replace(made, size=size) for size in (16, (16, 16)))
    for split in ("train", "test"):
      with batches(square, split=split, batch=5, seed=1) as a, batches(pair, split=split, batch=5, seed=1) as b:
        np.testing.assert_array_equal(next(a)["x"], next(b)["x"], name)


def test_the_picture_covers_the_size_with_its_aspect_kept(tmp_path):
  assert covering(100, 50, 20) == (40, 20) and covering(50, 100, 20) == (20, 40)
  assert covering(100, 50, (20, 60)) == (60, 30) and covering(100, 50, (40, 20)) == (80, 40)
  rng = np.random.default_rng(0)
  for _ in range(200):
    width, height, tall, wide = (int(n) for n in rng.integers(1, 300, 4))
    w, h = covering(width, height, (tall, wide))
    assert w >= wide and h >= tall and (w == wide or h == tall)
  path = tmp_path / "turned.jpg"
  exif = Image.Exif()
  exif[0x0112] = 6  # stored lying, shown upright
  Image.fromarray(np.zeros((400, 800, 3), np.uint8)).save(path, exif=exif)
  assert read_image(str(path), 3, (30, 10)).shape == (30, 15, 3)
  assert read_image(str(path), 3, (10, 30)).shape == (60, 30, 3)
  assert smaller((16, 23, 3), SIZE) and not smaller((16, 24, 3), SIZE)
  assert fits((23, 16), SIZE, False) == "23 x 16 is smaller than the crop of 24 x 16" and not fits(
    (24, 16), SIZE, False
  )


def test_a_picture_that_is_too_small_once_it_is_turned_is_broken(tmp_path):
  exif = Image.Exif()
  exif[0x0112] = 6
  Image.fromarray(np.zeros((16, 24, 3), np.uint8)).save(tmp_path / "0.jpg", exif=exif)
  made = Folder(path=str(tmp_path), size=SIZE, resize=False)
  with pytest.raises(Broken, match="16 x 24 is smaller than the crop"):
    made.read(["0.jpg"], [None], 0)


def test_shapes_lie_whole_in_the_middle_square():
  square, wide = (Shapes(size=size, count=30, test=5).records("train") for size in (16, (16, 32)))
  for i in range(30):
    a, b = square[i], wide[i]
    np.testing.assert_array_equal(a["factors"], b["factors"])
    np.testing.assert_array_equal(a["objects"], b["objects"][:, 8:24])
    assert not b["objects"][:, :8].any() and not b["objects"][:, 24:].any()


def test_flags_take_a_side_or_two():
  made = micro.experiment()
  for words in (["16,24"], ["16", "24"]):
    assert override(made, ["--stage1.data.size", *words, "--stage1.steps", "2"]).stage1.data.size == SIZE
  assert override(made, ["--stage1.data.size=16,24"]).stage1.data.size == SIZE
  assert override(made, ["--stage1.data.size", "24"]).stage1.data.size == 24
  wide = override(made, ["--stage1.data.size", "16,24", "--stage2.data.size", "16,24"])
  assert loads(dumps(wide), "here") == wide and addresses(wide)[0] != addresses(made)[0]
  assert source("digits", size=SIZE).shape == (*SIZE, 1)
  for wrong in ((16, 0), (16, 24, 32), "16"):
    with pytest.raises(UserError, match="must be a whole number"):
      source("digits", size=wrong)
  with pytest.raises(UserError, match="at least 1 pixel"):
    sides((0, 4))


@pytest.mark.parametrize("codes", [False, True])
def test_both_stages_scores_and_report(tmp_path, codes):
  made = micro.experiment(codes=codes)
  if codes:  # the transformer's length is that of the grid
    backbone = made.stage2.prior.backbone.clone(length=4 * 6)
    made = dataclasses.replace(
      made, stage2=dataclasses.replace(made.stage2, prior=made.stage2.prior.clone(backbone=backbone))
    )
  made = override(made, ["--stage1.data.size", "16,24", "--stage2.data.size", "16,24"])
  folder = run.run(made, tmp_path, None, "a test")
  for name in ("samples", "reconstructions", "neighbours"):
    assert np.load(folder / f"{name}.npz")["x"].shape[1:] == (*SIZE, 1)
    assert (folder / f"{name}.png").exists()
  assert (folder / "report.html").exists()
  assert main.main(["sample", str(folder), "--number", "3", "--out", str(tmp_path / "x.png")]) == 0


def test_ldm_kl_takes_a_rectangle_and_grey(tmp_path):
  pictures = paint(tmp_path / "pictures")
  made = build(find_file("ldm_kl"), ["--data", f"folder:{pictures}", "--size", "32,48", "--channels", "1"])
  assert made.stage1.data.shape == made.stage2.data.shape == (32, 48, 1)
  assert made.stage1.model.decoder.channels == 1
  paper = build(find_file("ldm_kl"), ["--scale", "paper", "--data", f"folder:{pictures}", "--channels", "1"])
  assert paper.stage1.data.shape == (256, 256, 1) and paper.stage1.model.decoder.channels == 1


def test_inspect_takes_both(tmp_path, capsys):
  pictures = paint(tmp_path / "pictures")
  flags = ["--size", "16,24", "--channels", "1", "--out", str(tmp_path / "x.png")]
  assert main.main(["data", "inspect", f"folder:{pictures}", *flags]) == 0
  assert '"shape": [\n  16,\n  24,\n  1\n ]' in capsys.readouterr().out
  assert main.main(["data", "inspect", "digits", "--size", "16x24"]) == 2
  assert capsys.readouterr().err.count("\n") == 1


@pytest.mark.parametrize(
  ("name", "said"), [("fsdd_codec", "free-spoken-digit-dataset"), ("dac_gan", "free-spoken-digit-dataset"),
                     ("ldm_kl", "--data folder:PICTURES"), ("video_autoencoder", "--data video:FOLDER")]
)  # fmt: skip
def test_where_missing_data_come_from_is_said(tmp_path, monkeypatch, capsys, name, said):
  file = str(find_file(name).resolve())
  monkeypatch.chdir(tmp_path)
  monkeypatch.setenv("TFDS_DATA_DIR", str(tmp_path))
  assert main.main(["run", file]) == 2
  error = capsys.readouterr().err
  assert said in error and error.count("\n") == 1
  assert main.main(["run", file, "--data", "audio:gone" if "data/fsdd" in error else "folder:gone"]) == 2
  assert said not in capsys.readouterr().err


def test_the_latent_and_the_picture_are_turned_alike_by_what_keeps_their_sides():
  inner = ConvDecoder(ch=4, mult=(1, 1), blocks=1, channels=1, mid_attention=False)
  made = Equivariant(inner=inner, rate=1.0, scales=(0.5,))
  x, z = (jax.random.normal(jax.random.key(i), shape) for i, shape in enumerate([(2, 16, 24, 1), (2, 8, 12, 3)]))
  rngs = {"params": jax.random.key(2), "decoder": jax.random.key(3)}
  variables = made.init(rngs, Latent(z=z), x, train=True)
  found = made.apply(variables, Latent(z=z), x, train=True, rngs={"decoder": jax.random.key(4)})
  turned = [jnp.rot90(resize(a, 0.5), 2, (1, 2)) for a in (z, x)]
  np.testing.assert_allclose(found.target, fill(turned[1], SIZE), rtol=1e-6)
  plain = inner.apply({"params": variables["params"]["inner"]}, Latent(z=turned[0]), turned[1], train=True)
  np.testing.assert_allclose(found.x, fill(plain.x, SIZE), rtol=1e-4, atol=1e-5)
