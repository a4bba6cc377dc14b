"""What is shown while a run works, and at its end."""

from latents.losses import L2
from latents.machine import progress
from latents.report import terminal
from latents.runs import training
from latents.train import loop
from tests import micro
from tests.test_report import scored, write


def test_the_training_bar_shows_what_matters_first():
  stage = micro.experiment().stage1
  names = training._headline(stage)
  assert names == ("l2", "kl", "gan") and isinstance(stage.losses["l2"], L2)
  logged = ("aux", "gan", "grad_ae", "kl", "kl_sum", "l2", "skipped", "std_mean", "total")
  values = {f"train/{name}": 1.0 for name in logged} | {"time/step_s": 1.0}
  assert list(loop._headline(values, names)) == ["train/total", "train/l2", "train/kl", "train/gan"]
  prior = {f"train/{name}": 1.0 for name in ("flow", "repa", "grad_prior", "skipped", "total", *"abcdef")}
  assert list(loop._headline(prior, ())) == ["train/total", "train/a", "train/b", "train/c", "train/d"]


def test_rows_pass_a_bar_unchanged(capsys):
  assert list(progress.over([[1, 2], [3]], "samples", 3, len)) == [[1, 2], [3]]
  assert "samples: 100%" in capsys.readouterr().err


def test_the_scores_are_a_short_table(tmp_path):
  lines = terminal.summary(write(tmp_path / "a", score=scored())).splitlines()
  assert lines[0].startswith("Rate") and lines[0].endswith("\N{UPWARDS ARROW}")
  assert any(line.split()[:3] == ["Distortion", "PSNR", "27.10"] for line in lines)
  assert sum(line.startswith("Samples") for line in lines) == 1 and 3 <= len(lines) < 20
  assert terminal.summary(write(tmp_path / "b", score={})) == ""
