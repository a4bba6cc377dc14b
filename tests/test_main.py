"""Bad input: one line on stderr, exit code 2, no traceback, nothing half-written."""

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from latents import main
from latents.declare import dumps
from latents.machine import environment
from tests import micro

ROOT = Path(__file__).parent.parent
DIGITS = str(ROOT / "experiments" / "images" / "digits.py")


def call(capsys, *argv) -> tuple[int, str, str]:
  code = main.main([str(a) for a in argv])
  out, err = capsys.readouterr()
  return code, out, err


def refused(capsys, *argv) -> str:
  """The one line that a command says before it exits with 2."""
  code, _, err = call(capsys, *argv)
  said = [line for line in err.splitlines() if line.startswith("latents: error:")]
  assert code == 2, err
  assert len(said) == 1 and "Traceback" not in err
  assert len(err.splitlines()) == 1 + err.count("latents: warning:")
  return said[0]


@pytest.fixture
def runs(tmp_path):
  return tmp_path / "runs"


def pictures(folder: Path, count: int = 4, size: int = 70) -> Path:
  folder.mkdir(parents=True, exist_ok=True)
  for i in range(count):
    pixels = np.random.default_rng(i).integers(0, 255, (size, size, 3), dtype=np.uint8)
    Image.fromarray(pixels).save(folder / f"{i}.png")
  return folder


def run_folder(folder: Path) -> Path:
  folder.mkdir(parents=True)
  (folder / "experiment.json").write_text(dumps(micro.experiment()))
  return folder


def test_unknown_flags_name_the_nearest(capsys, runs):
  assert "did you mean --stage1.steps?" in refused(capsys, "run", DIGITS, "--stage1.stepz", 5, "--runs", runs)
  assert "did you mean --scale?" in refused(capsys, "run", DIGITS, "--scal", "tiny", "--runs", runs)
  assert "--stage1.model.encoder.ch" in refused(capsys, "run", DIGITS, "--stage1.model.encoder.chh", 5, "--runs", runs)
  assert "did you mean --guidance?" in refused(capsys, "sample", runs, "--guidence", 2)
  assert not runs.exists()


def test_wrong_types_and_values(capsys, runs):
  assert "seven" in refused(capsys, "run", DIGITS, "--stage1.steps", "seven", "--runs", runs)
  assert "huge" in refused(capsys, "run", DIGITS, "--scale", "huge", "--runs", runs)
  for words in (",", "1,,2", ""):
    assert "is not a list such as" in refused(capsys, "sample", runs, f"--labels={words}")
  refused(capsys, "run", DIGITS, "stray", "--runs", runs)
  refused(capsys, "run", DIGITS, "--stage1.steps", "--runs", runs)
  assert not runs.exists()


IMPOSSIBLE = (
  ("--stage1.batch", 0),
  ("--stage1.batch", -4),
  ("--stage1.steps", -1),
  ("--stage1.log-every", 0),
  ("--stage1.model.decoder.channels", 3),
  ("--size", 30),
  ("--mesh.fsdp", 3),
  ("--stage1.ema", 1.5),
  ("--stage2.prior.sampler.steps", 0),
  ("--stage2.prior.backbone.classes", 0),
  ("--stage2.prior.backbone.classes", 5),
  ("--stage1.losses.kl.weight", "nan"),
  ("--evaluation.samples", 0),
  ("--stage2.prior.backbone.dtype", "bf16"),
  ("--stage1.model.encoder.dtype", "double"),
  ("--seed", -1),
  ("--seed", 2**32),
  ("--stage2.seed", 2**70),
  ("--stage2.prior.guidance", "nan"),
  ("--stage2.prior.guidance", "inf"),
  ("--stage1.optimizer.lr", "nan"),
  ("--stage2.prior.times.scale", "nan"),
  ("--evaluation.lpips", "nowhere.npz"),
)


@pytest.mark.parametrize("flags", IMPOSSIBLE, ids=lambda f: f"{f[0]}={f[1]}")
def test_impossible_values_are_said_before_anything_is_written(capsys, runs, flags):
  refused(capsys, "run", DIGITS, *flags, "--runs", runs)
  assert not runs.exists()


def test_commands_themselves(capsys):
  refused(capsys)
  refused(capsys, "rum", DIGITS)
  refused(capsys, "run")
  refused(capsys, "data")


def test_experiment_files(capsys, tmp_path, runs):
  assert "no experiment file" in refused(capsys, "run", tmp_path / "none.py", "--runs", runs)
  assert "digits" in refused(capsys, "run", "digitz", "--runs", runs)
  file = tmp_path / "mine.py"
  for text, word in (
    ("x = 1", "defines no function `experiment`"),
    ("def experiment(:", "mine.py:1: SyntaxError"),
    ("\nimport nowhere", "mine.py:2: ModuleNotFoundError"),
    ("def experiment(scale: str = 'tiny'):\n  return 3", "gives int"),
    ("def experiment(scale: str = 'tiny'):\n  return 1 / 0", "ZeroDivisionError"),
  ):
    file.write_text(text)
    assert word in refused(capsys, "run", file, "--runs", runs)
  assert "not an experiment file" in refused(capsys, "run", tmp_path, "--runs", runs)
  assert not runs.exists()


def test_data_that_are_not_there(capsys, tmp_path, runs):
  ldm = ROOT / "experiments" / "images" / "ldm_kl.py"
  (tmp_path / "empty").mkdir()
  flat = pictures(tmp_path / "flat", 20)
  assert "needs labels, but the data have no labels" in refused(
    capsys, "run", ldm, "--data", f"folder:{flat}", "--runs", runs, "--stage2.prior.guidance", "2"
  )
  broken = tmp_path / "broken"
  broken.mkdir()
  for i in range(5):
    (broken / f"{i}.png").write_text("no picture")
  refused(capsys, "run", ldm, "--data", f"folder:{broken}", "--runs", runs)
  assert "empty" in refused(capsys, "run", ldm, "--data", f"folder:{tmp_path / 'empty'}", "--runs", runs)
  assert "tiny_imagenet20" in refused(capsys, "run", ldm, "--data-dir", tmp_path, "--runs", runs)
  assert "did you mean folder" in refused(capsys, "run", ldm, "--data", "foldr:x", "--runs", runs)
  assert not runs.exists()


def test_inspect_skips_counts_and_names_broken_pictures(capsys, tmp_path):
  folder = pictures(tmp_path / "p", 5)
  whole = (folder / "0.png").read_bytes()
  (folder / "cut.png").write_bytes(whole[: len(whole) // 2])
  (folder / "text.jpg").write_text("no picture")
  out = tmp_path / "look.png"
  code, said, err = call(capsys, "data", "inspect", f"folder:{folder}", "--size", 32, "--out", out)
  assert code == 0 and out.stat().st_size > 0
  assert "cut.png" in err and "text.jpg" in err and "2 files" in err
  assert json.loads(said)


def test_pictures_smaller_than_the_crop(capsys, tmp_path):
  folder = pictures(tmp_path / "small", 3, size=8)
  code, _, _ = call(capsys, "data", "inspect", f"folder:{folder}", "--size", 32, "--out", tmp_path / "x.png")
  assert code == 0  # enlarged, which `resize=False` refuses: see the tests of the data


def test_prepare(capsys, tmp_path):
  folder = pictures(tmp_path / "a", 3)
  pictures(tmp_path / "b", 1)
  for bad in ("../out", "a b", "", "9"):
    refused(capsys, "data", "prepare", folder, bad, "--out", tmp_path / "sets")
  refused(capsys, "data", "prepare", tmp_path / "none", "mine", "--out", tmp_path / "sets")
  (tmp_path / "void").mkdir()
  refused(capsys, "data", "prepare", tmp_path / "void", "mine", "--out", tmp_path / "sets")
  assert not list((tmp_path / "sets").glob("*")) if (tmp_path / "sets").exists() else True


def test_folders_that_are_no_runs(capsys, tmp_path):
  for command in ("sample", "evaluate", "report"):
    assert "is not a folder" in refused(capsys, command, tmp_path / "none") or command == "report"
    refused(capsys, command, tmp_path)
  refused(capsys, "encode", tmp_path, "--out", tmp_path / "cache")
  assert not (tmp_path / "cache").exists()
  unfinished = run_folder(tmp_path / "unfinished")
  assert "no finished stage 1" in refused(capsys, "sample", unfinished)


def test_run_folder_of_another_experiment(capsys, tmp_path):
  other = run_folder(tmp_path / "runs" / "digits")
  before = (other / "experiment.json").read_bytes()
  assert "another experiment, 'micro'" in refused(capsys, "run", DIGITS, "--runs", tmp_path / "runs")
  assert "run's folder itself" in refused(capsys, "run", DIGITS, "--runs", other)
  assert (other / "experiment.json").read_bytes() == before
  (tmp_path / "file").write_text("")
  refused(capsys, "run", DIGITS, "--runs", tmp_path / "file")
  (tmp_path / "foreign" / "digits").mkdir(parents=True)
  (tmp_path / "foreign" / "digits" / "thesis.txt").write_text("precious")
  refused(capsys, "run", DIGITS, "--runs", tmp_path / "foreign")
  assert os.listdir(tmp_path / "foreign" / "digits") == ["thesis.txt"]
  refused(capsys, "run", DIGITS, "--runs", tmp_path, "--name", "../out")


def test_stored_experiment_that_names_a_class_outside_latents(capsys, tmp_path):
  folder = run_folder(tmp_path / "evil")
  tree = json.loads((folder / "experiment.json").read_text())
  tree["stage1"]["data"] = {"!": "os:system", "command": f"touch {tmp_path / 'harm'}"}
  (folder / "experiment.json").write_text(json.dumps(tree))
  for command in ("sample", "evaluate"):
    assert "not a part of latents: refused" in refused(capsys, command, folder)
  assert not (tmp_path / "harm").exists()


def test_weights_with_missing_or_extra_keys(capsys, tmp_path):
  from tests.test_resume import EXPERIMENT  # the same micro experiment

  del EXPERIMENT
  weights = tmp_path / "lpips.npz"
  np.savez(weights, **{"sqz/features.0.weight": np.zeros((64, 3, 3, 3), np.float16)})
  file = tmp_path / "e.py"
  file.write_text(
    "import dataclasses\nfrom tests import micro\nfrom latents.losses import LPIPSLoss\n"
    "def experiment(scale: str = 'tiny'):\n  made = micro.experiment()\n"
    f"  losses = {{**made.stage1.losses, 'lpips': LPIPSLoss(net='squeeze', path={str(weights)!r})}}\n"
    "  return dataclasses.replace(made, stage1=dataclasses.replace(made.stage1, losses=losses))\n"
  )
  runs = tmp_path / "runs"
  assert "lpips.npz" in refused(capsys, "run", file, "--runs", runs)
  weights.write_bytes(b"garbage")
  refused(capsys, "run", file, "--runs", runs)
  weights.unlink()
  refused(capsys, "run", file, "--runs", runs)
  assert not runs.exists()


def test_full_disk_is_one_line(tmp_path):
  """A file size limit stands in for a full disk: the write fails in the middle of a checkpoint."""
  file = tmp_path / "m.py"
  file.write_text("from tests import micro\ndef experiment(scale: str = 'tiny'):\n  return micro.experiment()\n")
  script = (
    "import resource, signal, sys\nfrom latents import main\n"
    "signal.signal(signal.SIGXFSZ, signal.SIG_IGN)\nresource.setrlimit(resource.RLIMIT_FSIZE, (20_000, 20_000))\n"
    f"sys.exit(main.main(['run', {str(file)!r}, '--runs', {str(tmp_path / 'runs')!r}]))"
  )
  env = {**os.environ, "PYTHONPATH": str(ROOT), "JAX_COMPILATION_CACHE_DIR": ""}
  done = subprocess.run([sys.executable, "-c", script], env=env, capture_output=True, text=True, timeout=600, cwd=ROOT)
  errors = [line for line in done.stderr.splitlines() if line.startswith("latents: error")]
  assert done.returncode == 2 and len(errors) == 1 and "Traceback" not in done.stderr, done.stderr[-3000:]
  assert "file size limit" in errors[0] or "disk is full" in errors[0]


def test_too_little_space_is_said_before_the_start(capsys, runs, monkeypatch):
  usage = shutil.disk_usage("/")
  monkeypatch.setattr(shutil, "disk_usage", lambda _: usage._replace(free=1000))
  assert "MiB free" in refused(capsys, "run", DIGITS, "--runs", runs)
  assert not runs.exists()


def test_list_names_every_experiment(capsys, runs):
  code, out, _ = call(capsys, "list", "--runs", runs)
  assert code == 0
  for path in (ROOT / "experiments").glob("**/*.py"):
    assert path.stem in out or path.stem == "__init__"


def test_list_knows_named_runs_and_those_of_own_files(capsys, runs, monkeypatch, tmp_path):
  monkeypatch.chdir(tmp_path)  # experiment files are found from everywhere
  run_folder(runs / "mine")
  named = run_folder(runs / "wide")
  declared = json.loads((named / "experiment.json").read_text()) | {"name": "digits"}
  (named / "experiment.json").write_text(json.dumps(declared))
  (runs / "no-run").mkdir()
  code, out, _ = call(capsys, "list", "--runs", runs)
  lines = [line.split() for line in out.splitlines()]
  assert code == 0 and ["digits", "started", "(wide)"] in [line[:3] for line in lines]
  assert lines[-2:] == [["other", "runs", "in", f"{runs}:"], ["mine", "started", "a", "run", "of", "micro"]]


def test_what_cannot_be_written_is_said_before_any_work(capsys, tmp_path, runs):
  (tmp_path / "file").write_text("")
  (tmp_path / "loop").symlink_to(tmp_path / "loop")
  (tmp_path / "nowhere").symlink_to(tmp_path / "none")
  long = "x" * 300
  assert "too long: at most 240 bytes" in refused(capsys, "run", DIGITS, "--runs", runs, "--name", long)
  assert "too long" in refused(capsys, "run", DIGITS, "--runs", runs, "--name", "\N{SNOWMAN}" * 100)
  assert "too long" in refused(capsys, "run", DIGITS, "--runs", tmp_path / long / "b")
  for name in ("file", "file/below", "file/far/below"):
    assert f"{tmp_path / 'file'} is not a folder" in refused(capsys, "run", DIGITS, "--runs", tmp_path / name)
    refused(capsys, "encode", run_folder(runs / name.replace("/", "-")), "--out", tmp_path / name)
  assert "links" in refused(capsys, "run", DIGITS, "--runs", tmp_path / "loop" / "x")
  assert "a link to nothing" in refused(capsys, "run", DIGITS, "--runs", tmp_path / "nowhere")
  for command in (("sample", runs), ("data", "inspect", "digits")):
    assert "too long" in refused(capsys, *command, "--out", tmp_path / f"{'x' * 256}.png")
    assert "is not a folder" in refused(capsys, *command, "--out", tmp_path / "file" / "x.png")
    assert "ending must be one of" in refused(capsys, *command, "--out", tmp_path / "x.jpg")
    (tmp_path / "x.png").write_text("mine")
    assert "add --overwrite" in refused(capsys, *command, "--out", tmp_path / "x.png")
    assert (tmp_path / "x.png").read_text() == "mine"
  for command in ("sample", "evaluate", "report"):
    assert "too long" in refused(capsys, command, tmp_path / long)


def test_doctor(capsys, monkeypatch):
  code, out, err = call(capsys, "doctor")
  assert code == 0 and "devices" in out and not err
  monkeypatch.setattr(environment, "accelerators", lambda: ["NVIDIA GPU 0000:01:00.0"])
  monkeypatch.delenv("JAX_PLATFORMS", raising=False)
  code, _, err = call(capsys, "doctor")
  assert code == 2 and "jax runs on the CPU" in err and "pip install -e '.[cuda]'" in err


def test_help_lists_the_flags_of_an_experiment(capsys):
  code, out, _ = call(capsys, "run", DIGITS, "--help")
  assert code == 0
  assert "--stage1.model.encoder.ch" in out and "--scale" in out and "--kl" in out


def test_a_lock_of_the_tpu_is_explained(tmp_path):
  lock = tmp_path / "libtpu_lockfile"
  assert environment.tpu_lock(lock) == []
  with lock.open("w"):
    (line,) = environment.tpu_lock(lock)
    assert f"held by process {os.getpid()}, which uses the TPU" in line
  (line,) = environment.tpu_lock(lock)
  assert "left over from a process that was killed" in line and "remove it" in line
