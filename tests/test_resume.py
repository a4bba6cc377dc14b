"""A run killed at any moment and started again is bitwise the run that was left alone."""

import json
import os
import re
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
EXPERIMENT = """
'''For tests. latents run'''
import dataclasses
from tests import micro

def experiment(scale: str = "tiny", codes: bool = False):
  made = micro.experiment(codes=codes)
  one = dataclasses.replace(made.stage1, steps=25, save_every=7)
  two = dataclasses.replace(made.stage2, steps=25, save_every=7, cache=True)
  return dataclasses.replace(made, stage1=one, stage2=two)
"""


def command(file: Path, runs: Path, *flags: str) -> list[str]:
  return [sys.executable, "-m", "latents.main", "run", str(file), "--runs", str(runs), *flags]


def start(*args, **options) -> subprocess.Popen:
  env = {**os.environ, "PYTHONPATH": str(ROOT)}
  return subprocess.Popen(command(*args), cwd=ROOT, env=env, stderr=subprocess.PIPE, text=True, **options)


def finish(process: subprocess.Popen) -> str:
  _, err = process.communicate(timeout=600)
  assert process.returncode == 0, err[-3000:]
  return err


def lines(folder: Path) -> dict[tuple[int, int], dict]:
  found = {}
  for text in (folder / "metrics.jsonl").read_text().splitlines():
    line = json.loads(text)
    key = (line.pop("stage"), line.pop("step"))
    assert key not in found, f"{key} is written twice"
    found[key] = {k: v for k, v in line.items() if k.startswith("train/")}
  return found


def kill_at(process: subprocess.Popen, folder: Path, stage: int, step: int, number: int) -> str:
  """Send the signal once the log has reached a step; the process may end first. What it said."""
  deadline = time.monotonic() + 300
  while process.poll() is None and time.monotonic() < deadline:
    path = folder / "metrics.jsonl"
    text = path.read_text() if path.exists() else ""
    last = [json.loads(li) for li in text.splitlines() if li.endswith("}")][-1:]
    if last and (last[0]["stage"], last[0]["step"]) >= (stage, step):
      process.send_signal(number)
      break
    time.sleep(0.005)
  return process.communicate(timeout=60)[1]


@pytest.fixture(scope="module")
def file(tmp_path_factory):
  path = tmp_path_factory.mktemp("file") / "micro.py"
  path.write_text(EXPERIMENT)
  return path


@pytest.fixture(scope="module")
def undisturbed(file, tmp_path_factory):
  runs = tmp_path_factory.mktemp("undisturbed")
  finish(start(file, runs))
  return runs / "micro"


def test_files_of_a_run(undisturbed):
  names = [
    "experiment.json",
    "metrics.jsonl",
    "samples.png",
    "samples.npz",
    "reconstructions.png",
    "neighbours.png",
    "report.html",
    "scores.json",
  ]
  assert all((undisturbed / name).stat().st_size > 0 for name in names)
  assert list((undisturbed / "tensorboard").glob("*/events*"))
  assert set(lines(undisturbed)) == {(stage, step) for stage in (1, 2) for step in range(1, 26)}
  assert not list(undisturbed.glob("**/*.tmp"))


def test_killed_runs_resume_bitwise(file, undisturbed, tmp_path):
  folder = tmp_path / "micro"
  for stage, step in ((1, 4), (1, 17), (2, 10)):
    kill_at(start(file, tmp_path), folder, stage, step, signal.SIGKILL)
    assert not (folder / "report.html").exists()
  finish(start(file, tmp_path))
  assert lines(folder) == lines(undisturbed)
  for name in ("weights.safetensors",):
    mine, theirs = (sorted(f.glob(f"stage*/{name}")) for f in (folder, undisturbed))
    assert [p.read_bytes() for p in mine] == [p.read_bytes() for p in theirs]


@pytest.mark.parametrize(
  ("number", "code", "word"), [(signal.SIGTERM, 75, "asked to stop"), (signal.SIGINT, 130, "interrupted")]
)
def test_signals_save_and_have_their_own_exit_codes(file, undisturbed, tmp_path, number, code, word):
  process = start(file, tmp_path)
  err = kill_at(process, tmp_path / "micro", 1, 3, number)
  assert process.returncode == code and "Traceback" not in err
  step = re.search(rf"^latents: {word}: saved at step (\d+) of stage 1; the same command resumes$", err, re.MULTILINE)
  assert step and (1, int(step[1])) == max(lines(tmp_path / "micro"))
  finish(start(file, tmp_path))
  assert lines(tmp_path / "micro") == lines(undisturbed)


@pytest.mark.slow
def test_sigterm_while_scoring_has_the_same_exit_code(file, tmp_path):
  """Nothing is to be saved then; a launcher that starts again on 75 goes on with the score card."""
  process = start(file, tmp_path)
  while process.poll() is None and not list((tmp_path / "micro").glob("stage2*/weights.safetensors")):
    time.sleep(0.02)
  process.send_signal(signal.SIGTERM)
  _, err = process.communicate(timeout=120)
  assert process.returncode == 75 and "asked to stop; the same command goes on" in err and "Traceback" not in err
  assert not (tmp_path / "micro" / "report.html").exists()
  finish(start(file, tmp_path))
  assert (tmp_path / "micro" / "report.html").exists()


def test_the_same_command_does_nothing_and_another_prior_reuses_stage1(file, undisturbed):
  before = {p: p.stat().st_mtime_ns for p in undisturbed.glob("**/*") if p.is_file() and p.name != ".lock"}
  assert "nothing to do" in finish(start(file, undisturbed.parent))
  assert before == {p: p.stat().st_mtime_ns for p in undisturbed.glob("**/*") if p.is_file() and p.name != ".lock"}
  err = finish(start(file, undisturbed.parent, "--stage2.steps", "3", "--name", "short"))
  assert "reused" in err and "stage 1, autoencoder" not in err
  short = undisturbed.parent / "short"
  assert {k: v for k, v in lines(short).items() if k[0] == 1} == {
    k: v for k, v in lines(undisturbed).items() if k[0] == 1
  }
  assert [k for k in lines(short) if k[0] == 2] == [(2, 1), (2, 2), (2, 3)]


def test_a_run_needs_its_folder_alone(undisturbed, tmp_path):
  import shutil

  import numpy as np

  import latents

  moved = tmp_path / "elsewhere"
  shutil.copytree(undisturbed, moved)
  model, original = latents.load(moved), latents.load(undisturbed)
  x = np.random.default_rng(0).uniform(-1, 1, (3, 16, 16, 1)).astype(np.float32)
  latent = model.encode(x)
  assert latent.z.shape == (3, 4, 4, 4)
  assert model.decode(latent).shape == x.shape
  np.testing.assert_array_equal(model.reconstruct(x), original.reconstruct(x))
  a = model.sample(labels=[0, 1, 2], seed=0, guidance=2.0)
  assert a.shape == (3, 16, 16, 1) and a.min() >= -1 and a.max() <= 1
  np.testing.assert_array_equal(a, original.sample(labels=[0, 1, 2], seed=0, guidance=2.0))
  np.testing.assert_array_equal(a[:2], model.sample(labels=[0, 1], seed=0, guidance=2.0))
  assert not np.array_equal(a, model.sample(labels=[0, 1, 2], seed=1, guidance=2.0))
  with np.testing.assert_raises(latents.errors.UserError):
    model.sample(labels=[10])
