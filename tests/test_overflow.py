"""Numbers beyond half precision: one line that names the part and what to do, and no picture of what is none."""

import dataclasses
from typing import Any

import jax
import numpy as np
import pytest

from latents import main
from latents.data import Folder
from latents.declare import Evaluation
from latents.errors import UserError
from latents.runs import run
from latents.store.folder import open_folder
from latents.train.build_step import abstract_autoencoder
from latents.use.model import Model
from tests import micro, releases
from tests.test_main import pictures

LINE = r"the {} computes in float16, which ends at 65504; .* \(--stage1.model.{}.dtype\)"


def loud(part: str, dtype: str, **changes: Any) -> Model:
  """The numbers within one part pass 65504, those of the other do not."""
  made = micro.experiment(gan=False, **changes)
  of: Any = made.stage1.model
  of = of.clone(**{part: getattr(of, part).clone(dtype=dtype)})
  made = dataclasses.replace(made, stage1=dataclasses.replace(made.stage1, model=of), stage2=None)
  arrays = jax.tree.map(lambda a: np.full(a.shape, 0.1, a.dtype), abstract_autoencoder(made))
  for name in ("conv_in", "level0_block0", "level2_block0"):
    for leaf in jax.tree.leaves(arrays["variables"]["params"][part].get(name, {})):
      leaf[...] = 3e4
  return Model(made, micro.one_device(), arrays, None, "")


@pytest.mark.parametrize("part", ["encoder", "decoder"])
def test_the_part_that_overflows_is_named(part):
  x = np.random.default_rng(0).uniform(-1, 1, (2, 32, 16, 1)).astype(np.float32)
  line = "2 of 2 of .* are not finite .*" + LINE.format(part, part)
  model = loud(part, "float16")
  with pytest.raises(UserError, match=line):
    model.reconstruct(x)
  with pytest.raises(UserError, match=line):
    model.tiled(16).reconstruct(x)
  if part == "decoder":
    with pytest.raises(UserError, match=line):
      model.decodings(x[:, :16])
  for dtype in ("float32", "bfloat16"):
    assert np.isfinite(loud(part, dtype).reconstruct(x)).all()


@pytest.mark.parametrize("part", ["encoder", "decoder"])
def test_commands_on_an_imported_run_in_half_precision(part, tmp_path, capsys):
  held = releases.arrays()
  held[f"{part}.conv_in.weight"] *= 1e6
  file, runs = releases.write(tmp_path / "vae.safetensors", held), tmp_path / "runs"
  assert main.main(["import", str(file), "--layout", "sd", "--name", "sd", "--size", "16", "--runs", str(runs)]) == 0
  one = open_folder(runs / "sd").experiment.stage1
  model: Any = one.model
  model = model.clone(**{part: getattr(model, part).clone(dtype="float16")})
  data = Folder(path=str(pictures(tmp_path / "pictures", 12, 16)), size=16)
  made = micro.experiment(
    stage1=dataclasses.replace(one, model=model, data=data), stage2=None,
    evaluation=Evaluation(images=2, batch=2, features=False),
  )  # fmt: skip
  with pytest.raises(UserError, match=LINE.format(part, part)):
    run.run(made, runs, "half", "a test")
  folder = runs / "half"
  capsys.readouterr()
  picture, out = tmp_path / "pictures" / "0.png", tmp_path / "out"
  commands = [["reconstruct", folder, picture, "--out", out], ["evaluate", folder]]
  commands += [["reconstruct", folder, picture, "--out", out, "--tile", 8]]
  for words in commands + [["encode", folder, "--out", out]] * (part == "encoder"):
    assert main.main([str(word) for word in words]) == 2
    said = capsys.readouterr().err.splitlines()  # `evaluate` shows its progress too
    assert [f"the {part} computes in float16" in line for line in said if "latents: error:" in line] == [True]
  assert not out.exists() or not list(out.rglob("*.npy"))
  assert not list(folder.glob("*.png")) and not list(folder.glob("*.npz")) and not (folder / "scores.json").exists()


def test_units_are_not_measured_on_what_is_no_number(tmp_path):
  held = releases.arrays()
  held["encoder.conv_in.weight"] *= 1e6
  file = releases.write(tmp_path / "vae.safetensors", held)
  pictures(tmp_path / "pictures", 12, 16)
  words = ["import", file, "--layout", "sd", "--name", "sd", "--size", 16, "--runs", tmp_path / "runs"]
  assert main.main([*map(str, words), "--data", f"folder:{tmp_path / 'pictures'}"]) == 0
  one = open_folder(tmp_path / "runs" / "sd").experiment.stage1
  model: Any = one.model
  one = dataclasses.replace(one, model=model.clone(encoder=model.encoder.clone(dtype="float16")))
  made = micro.experiment(stage1=one, stage2=None)
  with pytest.raises(
    UserError, match="the latents of the training data are not finite .*" + LINE.format(*["encoder"] * 2)
  ):
    run.run(made, tmp_path / "runs", "half", "a test")
