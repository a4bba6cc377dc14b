"""Parts that stand in an experiment file of one's own: trained, and used again by whoever has that file."""

import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

import latents
from latents import main
from latents.command import overrides
from latents.declare import dumps, loads, own_parts, stored
from latents.errors import UserError

FILE = '''
"""Latents squashed by a hyperbolic tangent."""

import dataclasses
from typing import Literal

import jax.numpy as jnp

from latents.bottlenecks import Bottleneck
from latents.types import Latent
from tests import micro


class Squash(Bottleneck):
  """tanh of `scale` times the features."""

  scale: float = 1.0

  def __call__(self, h, *, train):
    return Latent(z=jnp.tanh(self.scale * h))

  def store(self, h):
    return h

  def recall(self, stored, *, train):
    return Latent(z=jnp.tanh(self.scale * stored))


def experiment(scale: Literal["tiny"] = "tiny"):
  made = micro.experiment(gan=False)
  model = made.stage1.model
  model = model.clone(encoder=model.encoder.clone(out=4), bottleneck=Squash(scale=2.0))
  one = dataclasses.replace(made.stage1, model=model, losses={"l2": made.stage1.losses["l2"]}, steps=2)
  return dataclasses.replace(made, name="squash", stage1=one, stage2=dataclasses.replace(made.stage2, steps=2))
'''


@pytest.fixture
def file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
  monkeypatch.setattr(stored, "_own", {})
  path = tmp_path / "squash.py"
  path.write_text(FILE.lstrip("\n"))
  return path


def test_a_part_of_ones_own_is_trained_and_used_again(file: Path, tmp_path: Path, capsys: pytest.CaptureFixture):
  assert main.main(["run", str(file), "--runs", str(tmp_path / "runs")]) == 0
  said = capsys.readouterr().err
  assert "squash:Squash: no part of latents, so whatever reads this run wants its file, --experiment FILE" in said
  assert said.index("--experiment FILE") < said.index("stage 1")  # before anything is trained
  run = tmp_path / "runs" / "squash"
  assert (run / "report.html").is_file()
  parts = list(stored._own.values())
  stored._own.clear()  # as another process knows nothing of it
  sample = ["sample", str(run), "--number", "2", "--out", str(tmp_path / "x.npz")]
  assert main.main(sample) == 2
  assert "names 'squash:Squash', which is not a part of latents: refused (if it is yours" in capsys.readouterr().err
  with pytest.raises(UserError, match="parts="):
    latents.load(run)
  assert main.main([*sample, "--experiment", str(file)]) == 0
  assert main.main(["report", str(run), "--experiment", str(file)]) == 0
  stored._own.clear()
  x = np.zeros((1, 16, 16, 1), np.float32)
  assert latents.load(run, parts=parts).reconstruct(x).shape == x.shape


def test_a_file_has_one_name_however_it_is_reached(file: Path, tmp_path: Path):
  folder = tmp_path / "experiments" / "own"
  folder.mkdir(parents=True)
  file = file.rename(folder / "squash.py")
  made = overrides.load_file(file).experiment()
  assert {f"{c.__module__}:{c.__name__}" for c in own_parts(made)} == {"experiments.own.squash:Squash"}
  assert "experiments.own.squash" not in sys.modules
  assert loads(dumps(made), "x") == made


def test_only_dataclasses_that_are_named_are_built(file: Path):
  text = dumps(overrides.load_file(file).experiment())
  stored._own.clear()
  stored.admit([subprocess.Popen, Path])
  assert not stored._own
  for name in ("subprocess:Popen", "squash:Squash", "squash:Other"):
    with pytest.raises(UserError, match="not a part of latents"):
      loads(text.replace("squash:Squash", name), "x")
