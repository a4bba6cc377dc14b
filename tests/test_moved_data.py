"""Data that were moved after a run: found again with --data, and refused where they are others."""

import dataclasses
import shutil
from pathlib import Path

import pytest

from latents import main
from latents.data import Folder
from latents.declare import addresses, with_data_at
from latents.errors import UserError
from latents.runs import run
from latents.store.folder import open_folder
from tests import micro
from tests.test_folder import paint


def test_a_run_whose_data_were_moved_is_measured_and_encoded(tmp_path: Path, capsys: pytest.CaptureFixture):
  pictures, now = paint(tmp_path / "pictures"), tmp_path / "elsewhere"
  made = micro.experiment(gan=False)
  one = dataclasses.replace(made.stage1, data=Folder(str(pictures), size=16, channels=1), steps=2, batch=2)
  made = dataclasses.replace(made, stage1=one, stage2=None)
  folder = run.run(made, tmp_path / "runs", None, "test")
  pictures.rename(now)
  before = (folder / "scores.json").read_text()

  def told(*words: str) -> tuple[int, str]:
    return main.main([words[0], str(folder), *words[1:]]), capsys.readouterr().err

  out = ("--out", str(tmp_path / "cache"))
  for words in (("evaluate",), ("encode", *out)):
    code, said = told(*words)
    assert code == 2 and str(pictures) in said and "Traceback" not in said
  assert (folder / "scores.json").read_text() == before and not (tmp_path / "cache").exists()
  assert told("encode", *out, "--data", str(now))[0] == 0
  assert told("evaluate", "--data", str(now))[0] == 0
  assert open_folder(folder).experiment.stage1.data.path == str(now)  # from now on
  assert addresses(open_folder(folder).experiment) == addresses(made)
  other = Path(shutil.copytree(now, tmp_path / "other"))
  next(other.rglob("*.png")).unlink()
  code, said = told("evaluate", "--data", str(other))
  assert code == 2 and "are not those that" in said


def test_data_that_lie_nowhere_cannot_be_elsewhere():
  with pytest.raises(UserError, match="lie in no folder"):
    with_data_at(micro.experiment(), "/x")
