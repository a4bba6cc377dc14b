"""An autoencoder alone: `--stage2 none`."""

import dataclasses

import pytest

from latents import main
from latents.command.overrides import override
from latents.declare import addresses, dumps, loads
from latents.errors import UserError
from latents.store.folder import open_folder
from tests import micro
from tests.test_resume import EXPERIMENT


def test_the_flag_takes_the_prior_away_and_what_does_not_fit_is_one_line():
  made = micro.experiment()
  for flags in (["--stage2", "none"], ["--stage2=None", "--stage1.steps", "3"]):
    alone = override(made, flags)
    assert alone.stage2 is None and addresses(alone)[1] is None
    assert loads(dumps(alone), "here") == alone
  assert addresses(override(made, ["--stage2", "none"]))[0] == addresses(made)[0]
  assert override(dataclasses.replace(made, stage2=None), ["--stage2", "none"]).stage2 is None
  for flags, said in (
    (["--stage2", "off"], "--stage2 off: only `none` is possible"),
    (["--stage2"], "--stage2: only `none` is possible"),
    (["--stage2", "none", "--stage2.steps", "3"], "--stage2.steps: there is no stage 2"),
  ):
    with pytest.raises(UserError, match=said):
      override(made, flags)


def test_it_is_trained_scored_and_reported_and_the_prior_may_come_later(tmp_path, capsys):
  file = tmp_path / "micro.py"
  file.write_text(EXPERIMENT)
  short = ["--runs", str(tmp_path / "runs"), "--stage1.steps", "3"]
  folder = tmp_path / "runs" / "micro"
  assert main.main(["run", str(file), *short, "--stage2", "none"]) == 0
  out, err = capsys.readouterr()
  assert "PSNR" in out and "stage 2" not in err
  assert open_folder(folder).experiment.stage2 is None and not list(folder.glob("stage2-*"))
  assert "This experiment has no stage 2 (no prior)" in (folder / "report.html").read_text()
  assert not (folder / "samples.npz").exists() and not (folder / "neighbours.npz").exists()
  assert main.main(["sample", str(folder), "--out", str(tmp_path / "x.png")]) == 2
  assert capsys.readouterr().err == "latents: error: micro has no prior (stage 2), so it cannot sample\n"
  assert main.main(["evaluate", str(folder), "--images", "10"]) == 0
  assert main.main(["run", str(file), *short, "--stage2.steps", "2"]) == 0
  err = capsys.readouterr().err
  assert "stage 2, prior" in err and "stage 1, autoencoder" not in err  # what is trained is not trained again
  assert len(list((tmp_path / "runs").glob("*/samples.npz"))) == 1  # of the run that stands beside
