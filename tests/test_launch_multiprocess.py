"""`launch.multiprocess` with real processes."""

import shlex
import signal
import subprocess
import sys
import time

import pytest

from latents.errors import UserError
from launch import command, multiprocess
from tests.programs import ROOT, alive, eventually, stand_in


@pytest.fixture
def latents(tmp_path, monkeypatch):
  return stand_in(tmp_path, monkeypatch)


def group(words: str, **options) -> int:
  return multiprocess.launch([sys.executable, "-IS", "-c", words], multiprocess.Group(**options), command.Runner())


def test_multiprocess_environment_prefix_and_success(capsys, monkeypatch):
  monkeypatch.setenv("XLA_FLAGS", "--a=1 --xla_force_host_platform_device_count=7")
  names = ("LATENTS_PROCESS", "LATENTS_PROCESSES", "LATENTS_COORDINATOR", "XLA_FLAGS", "JAX_PLATFORMS")
  code = f"import os, sys; print(*[os.environ[n] for n in {names}]); print('err', file=sys.stderr)"
  assert group(code, processes=2, devices=3, port=4242) == 0
  out, err = capsys.readouterr()
  shown = "{0} 2 127.0.0.1:4242 --a=1 --xla_force_host_platform_device_count=3 cpu"
  assert sorted(out.splitlines()) == sorted([f"[{i}] {t}" for i in (0, 1) for t in (shown.format(i), "err")])
  assert err == ""


def test_multiprocess_dry_run_is_what_runs(latents, capsys):
  words = ["--processes", "2", "--devices-per-process", "4", "--port", "4242", "--", "run", "x.py"]
  assert multiprocess.main(["--dry-run", *words]) == 0
  dry = [shlex.split(line) for line in capsys.readouterr().out.splitlines()]
  assert multiprocess.main(words) == 0
  made = sorted(latents(), key=lambda run: run[1]["LATENTS_PROCESS"])
  for printed, (argv, environment) in zip(dry, made, strict=True):
    cut = printed.index(sys.executable)
    assert printed[cut:] == [*command.LATENTS, *argv] and argv[-1] == "--distributed"
    assert dict(word.split("=", 1) for word in printed[:cut]).items() <= environment.items()


KILLED = "import os, signal, time\nif os.environ['LATENTS_PROCESS'] == '1': {}\ntime.sleep(30)"


@pytest.mark.parametrize(
  ("end", "code", "how"),
  [
    ("os.kill(os.getpid(), signal.SIGKILL)", 137, "was killed by SIGKILL"),
    ("raise SystemExit(5)", 5, "ended with exit code 5"),
  ],
)
def test_multiprocess_failure_ends_the_others_and_is_named(end, code, how, capsys):
  begin = time.monotonic()
  assert group(KILLED.format(end), processes=3, grace=20) == code
  assert time.monotonic() - begin < 5
  err = capsys.readouterr().err
  assert err.startswith("launch: process 1 (pid ") and err.endswith(f"{how}; the others are ended within 20 s\n")


def test_multiprocess_kills_what_ignores_sigterm(capsys):
  code = "import signal; signal.signal(signal.SIGTERM, signal.SIG_IGN)\n" + KILLED.format(
    "time.sleep(0.3); raise SystemExit(5)"
  )
  begin = time.monotonic()
  assert group(code, processes=2, grace=0.3) == 5
  assert time.monotonic() - begin < 5


def test_multiprocess_lets_the_others_save_after_a_preemption(capsys):
  code = (
    "import os, time\nif os.environ['LATENTS_PROCESS'] == '1': raise SystemExit(75)\n"
    "time.sleep(0.5); print('saved'); raise SystemExit(75)"
  )
  assert group(code, processes=2, grace=20) == 75
  assert "[0] saved\n" in capsys.readouterr().out


def test_multiprocess_missing_program():
  with pytest.raises(UserError, match="cannot run /no/such"):
    multiprocess.launch(["/no/such"], multiprocess.Group(), command.Runner())


@pytest.mark.parametrize(("number", "code"), [(signal.SIGTERM, 75), (signal.SIGINT, 130), (signal.SIGKILL, -9)])
def test_multiprocess_launcher_that_is_stopped_leaves_none(number, code, tmp_path):
  """Each process has a child of its own; on SIGTERM it saves (75), after which the child would be an orphan."""
  child = (
    "import os, signal, subprocess, sys, time\nsignal.signal(signal.SIGTERM, lambda *_: sys.exit(75))\n"
    "signal.signal(signal.SIGINT, lambda *_: sys.exit(130))\n"
    f"own = subprocess.Popen([sys.executable, '-ISc', 'import signal,time; signal.signal({int(signal.SIGTERM)}, "
    f"signal.SIG_IGN); signal.signal({int(signal.SIGINT)}, signal.SIG_IGN); time.sleep(30)'])\n"
    "time.sleep(0.1); print(os.getpid(), own.pid)\ntime.sleep(30)"
  )
  launcher = (
    "import sys; from launch import command, multiprocess as m; "
    f"sys.exit(m.launch([sys.executable, '-IS', '-uc', {child!r}], m.Group(grace=1), command.Runner()))"
  )
  made = subprocess.Popen([sys.executable, "-c", launcher], cwd=ROOT, stdout=subprocess.PIPE, text=True)
  pids = [int(pid) for _ in range(2) for pid in made.stdout.readline().split()[1:]]
  assert len(pids) == 4 and all(map(alive, pids))
  made.send_signal(number)
  assert made.wait(10) == code
  made.stdout.close()
  assert eventually(lambda: not any(map(alive, pids)))
