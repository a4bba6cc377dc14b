"""What all launchers share, `local` and `slurm`, against programs that record how they were called."""

import shlex
import subprocess
import sys
from pathlib import Path

import pytest

from launch import command, local, multiprocess, slurm, tpu_pod
from tests.programs import ROOT, Fakes, stand_in


@pytest.fixture
def fakes(tmp_path, monkeypatch):
  return Fakes(tmp_path, monkeypatch)


@pytest.fixture
def latents(tmp_path, monkeypatch):
  return stand_in(tmp_path, monkeypatch)


# --- what all share


@pytest.mark.parametrize("module", [local, multiprocess, slurm, tpu_pod])
@pytest.mark.parametrize(
  ("words", "text"),
  [
    ([], None),
    (["--", "rum", "x.py"], "invalid choice: 'rum'"),
    (["--dry-rum", "--", "run", "x.py"], "unknown flag --dry-rum (did you mean --dry-run?)"),
  ],
)
def test_bad_input_is_one_line_and_exit_code_2(module, words, text, capsys):
  needed = {slurm: ["--time", "1:00"], tpu_pod: ["--name", "a", "--zone", "z", "--existing"]}.get(module, [])
  assert module.main([*needed, *words]) == 2
  out, err = capsys.readouterr()
  assert out == "" and err.count("\n") == 1 and err.startswith("launch: error: ")
  assert (text or "nothing to run") in err


@pytest.mark.parametrize(
  ("module", "words", "text"),
  [
    (local, ["--resume", "-1"], "--resume"),
    (local, ["--platform", "tpu"], "--platform"),
    (multiprocess, ["--processes", "0"], "'0' is not a whole number of at least 1"),
    (slurm, [], "--time"),
    (slurm, ["--time", "60", "--folder", "gs://b/x"], "gs://b/x: only paths of this machine's disks"),
    (slurm, ["--time", "soon"], "--time soon"),
    (slurm, ["--time", "60", "--name", "a b"], "--name a b"),
    (slurm, ["--time", "60", "--account", "x\n#SBATCH --nodes=9"], "cannot stand"),
    (tpu_pod, ["--name", "A_b", "--zone", "z", "--existing"], "--name A_b"),
    (tpu_pod, ["--name", "a", "--zone", "z"], "--accelerator-type"),
  ],
)
def test_bad_values(module, words, text, capsys, fakes):
  assert module.main([*words, "--", "run", "x.py"]) == 2
  err = capsys.readouterr().err
  assert text in err and err.count("\n") == 1
  assert fakes.calls() == []


def test_missing_program(capsys, monkeypatch, tmp_path):
  monkeypatch.setenv("PATH", str(tmp_path))
  assert slurm.main(["--time", "60", "--folder", str(tmp_path), "--", "run", "x.py"]) == 2
  assert capsys.readouterr().err == "launch: error: cannot run sbatch: No such file or directory\n"


# --- local


def test_local_settings_and_what_the_user_has_set():
  cpu = local.settings("cpu", {"MALLOC_ARENA_MAX": "4"})
  assert cpu["JAX_PLATFORMS"] == "cpu" and cpu["MALLOC_MMAP_MAX_"] == "0" and "MALLOC_ARENA_MAX" not in cpu
  assert "XLA_FLAGS" not in cpu and "JAX_COMPILATION_CACHE_DIR" in cpu
  gpu = local.settings("gpu", {"XLA_FLAGS": "--a=1 --xla_gpu_triton_gemm_any=false"})
  assert gpu["XLA_FLAGS"] == "--a=1 --xla_gpu_triton_gemm_any=false --xla_gpu_enable_latency_hiding_scheduler=true"
  assert "JAX_PLATFORMS" not in gpu and "MALLOC_MMAP_MAX_" not in gpu
  assert local.settings("cpu", cpu | {"MALLOC_ARENA_MAX": "4"}) == {}


def test_local_dry_run_is_what_runs(latents, capsys, tmp_path):
  words = ["--platform", "gpu", "--resume", "1", "--", "run", "x.py", "--name", "it's a test"]
  assert local.main(["--dry-run", *words]) == 0
  assert not (tmp_path / "runs").exists()
  dry = shlex.split(capsys.readouterr().out)
  assert local.main(words) == 0
  ((argv, environment),) = latents()
  made = dict(word.split("=", 1) for word in dry[: dry.index(sys.executable)])
  assert set(made) >= {"XLA_FLAGS", "XLA_PYTHON_CLIENT_MEM_FRACTION"}
  assert made.items() <= environment.items() and dry[dry.index(sys.executable) :] == [*command.LATENTS, *argv]


def test_local_becomes_the_command(latents):
  code = f"from launch import command, local; command.LATENTS = {command.LATENTS!r}; local.main(['--', 'list'])"
  made = subprocess.Popen([sys.executable, "-c", code], cwd=ROOT)
  assert made.wait() == 0
  assert latents()[0][0] == ["list"]


@pytest.mark.parametrize(
  ("exits", "resume", "code", "runs"),
  [("75 75 0", 5, 0, 3), ("75 75 0", 1, 75, 2), ("75 3 0", 5, 3, 2), ("0", 5, 0, 1)],
)
def test_local_resumes_after_preemption_only(exits, resume, code, runs, latents, tmp_path):
  (tmp_path / "exits").write_text(exits)
  assert local.main(["--resume", str(resume), "--", "run", "x.py"]) == code
  assert len(latents()) == runs


def test_local_passes_sigterm_on_and_does_not_resume(tmp_path):
  child = tmp_path / "child.py"
  child.write_text(
    "import signal, sys, time\nsignal.signal(signal.SIGTERM, lambda *_: sys.exit(75))\n"
    "print('up', flush=True)\ntime.sleep(30)\n"
  )
  words = (sys.executable, "-IS", str(child))
  code = (
    f"import sys; from launch import command, local; command.LATENTS = {words!r}; "
    "sys.exit(local.main(['--resume', '9', '--', 'list']))"
  )
  launcher = subprocess.Popen([sys.executable, "-c", code], cwd=ROOT, stdout=subprocess.PIPE, text=True)
  assert launcher.stdout.readline() == "up\n"
  launcher.terminate()
  assert launcher.wait(10) == 75
  assert launcher.stdout.read() == ""
  launcher.stdout.close()


# --- slurm

SLURM = ["--time", "2-00:00:00", "--nodes", "2", "--gpus-per-node", "8", "--partition", "p", "--account", "a"]


def test_slurm_dry_run_is_what_is_submitted(fakes, tmp_path, capsys):
  words = [*SLURM, "--option", "qos=long", "--folder", str(tmp_path / "s"), "--", "run", "x.py", "--name", "it's"]
  assert slurm.main(["--dry-run", *words]) == 0
  assert fakes.calls() == [] and not (tmp_path / "s").exists()
  dry = capsys.readouterr().out
  assert slurm.main(words) == 0
  assert capsys.readouterr().out == "4711\n"
  path = tmp_path / "s" / "latents.sbatch"
  (call,) = fakes.calls()
  assert dry == f"# {path}\n{path.read_text()}\n{shlex.join(call)}\n"
  asked = [line.removeprefix("#SBATCH --") for line in path.read_text().splitlines() if line.startswith("#SBATCH")]
  wanted = "nodes=2 ntasks-per-node=1 gpus-per-node=8 time=2-00:00:00 partition=p account=a signal=TERM@120 requeue"
  assert {*wanted.split(), "qos=long", "open-mode=append"} <= set(asked)


@pytest.mark.parametrize(
  ("code", "count", "requeued"),
  [("75", "", True), ("75", "99", True), ("75", "100", False), ("1", "", False), ("0", "", False)],
)
def test_slurm_script_requeues_itself_when_preempted(code, count, requeued, fakes, tmp_path, monkeypatch):
  fakes.steer(srun=code)
  words = [*command.LATENTS, "run", "x.py", "--name", "it's"]
  job = slurm.Job(name="n", time="60", nodes=2)
  text = slurm.script(job, words, tmp_path / "log")
  monkeypatch.setenv("SLURM_JOB_ID", "12")
  monkeypatch.setenv("SLURM_RESTART_COUNT", count)
  assert subprocess.run(["bash", "-c", text]).returncode == int(code)
  calls = fakes.calls()
  assert calls[0] == ["srun", "--wait=60", *words, "--distributed"]
  assert calls[1:] == ([["scontrol", "requeue", "12"]] if requeued else [])


def test_slurm_one_node_is_not_distributed():
  text = slurm.script(slurm.Job(name="n", time="60"), ["x"], Path("/log"))
  assert "--distributed" not in text and "gpus" not in text and "export MALLOC_ARENA_MAX=1" in text
