"""How a command ends when it is told to: exit codes, one line, never a traceback."""

import os
import pty
import signal
import subprocess
import sys
import time
import warnings
from pathlib import Path

import pytest

from latents.machine import endings

ROOT = Path(__file__).parent.parent
ENVIRONMENT = {**os.environ, "PYTHONPATH": str(ROOT)}
WAITS = "import time\nprint('up', flush=True)\ntime.sleep(60)"
# works in steps, and looks at what is asked for after each
STEPS = """
import time
with endings.Request("saved after this step") as stop:
  print('up', flush=True)
  for _ in range(600):
    time.sleep(0.1)
    if stop.code:
      time.sleep(LAST)
    stop.check()
"""
# a callback in which any exception that a signal raises is lost, as in jax's at garbage collection
CALLBACK = (
  "import gc, time\ngc.callbacks.append(lambda *_: time.sleep(0.02))\nprint('up', flush=True)\nwhile True: gc.collect()"
)


def program(body: str) -> str:
  lines = "\n".join(f"  {line}" for line in body.strip().splitlines())
  return f"import sys\nfrom latents.machine import endings\ndef call():\n{lines}\nendings.leave(endings.guarded(call))"


def start(body: str) -> subprocess.Popen:
  pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "text": True}
  process = subprocess.Popen([sys.executable, "-c", program(body)], env=ENVIRONMENT, **pipes)
  assert process.stdout.readline() == "up\n"
  return process


def ended(process: subprocess.Popen) -> tuple[int, list[str]]:
  _, err = process.communicate(timeout=20)
  return process.returncode, err.splitlines()


@pytest.mark.parametrize("body", [WAITS, CALLBACK], ids=["waits", "callback"])
@pytest.mark.parametrize(
  ("number", "code", "line"),
  [
    (signal.SIGINT, 130, "latents: interrupted; the same command goes on"),
    (signal.SIGTERM, 75, "latents: asked to stop; the same command goes on"),
    (signal.SIGHUP, 75, "latents: asked to stop, the terminal is gone; the same command goes on"),
  ],
)
def test_a_signal_ends_a_command_at_once(body, number, code, line):
  process = start(body)
  process.send_signal(number)
  assert ended(process) == (code, [line])


@pytest.mark.parametrize(("number", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 75), (signal.SIGHUP, 75)])
def test_a_step_is_brought_to_its_end(number, code):
  process = start(STEPS.replace("LAST", "0"))
  process.send_signal(number)
  found, lines = ended(process)
  assert found == code and lines[-1].endswith(": the same command goes on")
  assert lines[:-1] == (["latents: interrupted: saved after this step; ^C again ends at once"] if code == 130 else [])


def test_a_second_interrupt_ends_at_once_and_one_that_is_passed_on_is_the_same():
  process = start(STEPS.replace("LAST", "30"))
  process.send_signal(signal.SIGINT)
  process.send_signal(signal.SIGINT)  # as `timeout -s INT` sends it
  time.sleep(0.5)
  assert process.poll() is None
  begin = time.monotonic()
  process.send_signal(signal.SIGINT)
  code, lines = ended(process)
  assert code == 130 and time.monotonic() - begin < 5
  assert lines[-1] == "latents: interrupted again: ended at once; the last complete checkpoint stands"


def test_among_several_processes_jax_hears_of_it():
  heard = []
  before = signal.signal(signal.SIGTERM, lambda *_: heard.append("SIGTERM"))  # stands for jax's own
  try:
    with endings.Request("saved", relay=True) as stop:
      os.kill(os.getpid(), signal.SIGHUP)
    assert (stop.code, heard) == (75, ["SIGTERM"])
    with endings.Request("saved", relay=True) as stop:
      os.kill(os.getpid(), signal.SIGINT)
    assert (stop.code, heard) == (130, ["SIGTERM"] * 2)
    assert str(stop.stopped("saved at step 3")) == "interrupted: saved at step 3"
    with endings.Request("saved", relay=True) as stop:
      assert str(stop.stopped("saved at step 3")) == "asked to stop: saved at step 3"  # another one was asked
  finally:
    signal.signal(signal.SIGTERM, before)


# a library's call that comes back after long, without the interpreter's lock, as a compilation: no handler runs in it
SPIN = "import hashlib\nprint('up', flush=True)\nhashlib.pbkdf2_hmac('sha256', b'a', b'b', 60_000_000)"


@pytest.mark.parametrize(("number", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 75)])
def test_a_signal_is_heard_within_a_library(number, code):
  process = start(SPIN)
  time.sleep(0.3)  # until it is within
  begin = time.monotonic()
  process.send_signal(number)
  found, lines = ended(process)
  assert (found, len(lines)) == (code, 1) and time.monotonic() - begin < 5


def test_a_second_interrupt_is_heard_within_a_library():
  within = SPIN.replace("\n", "; ").replace("import hashlib", "import hashlib, time")
  process = start(f"with endings.Request('saved after this step'):\n  {within}")
  process.send_signal(signal.SIGINT)
  time.sleep(0.6)
  assert process.poll() is None
  begin = time.monotonic()
  process.send_signal(signal.SIGINT)
  code, lines = ended(process)
  assert (code, lines[-1]) == (130, f"latents: {endings.AGAIN}") and time.monotonic() - begin < 5


def test_what_is_to_be_ignored_stays_ignored():
  before = {n: signal.signal(n, signal.SIG_IGN) for n in (signal.SIGINT, signal.SIGHUP)}
  try:
    process = start(WAITS)
  finally:
    for number, handler in before.items():
      signal.signal(number, handler)
  process.send_signal(signal.SIGHUP)
  process.send_signal(signal.SIGINT)
  time.sleep(0.3)
  assert process.poll() is None
  process.send_signal(signal.SIGTERM)
  assert ended(process)[0] == 75


@pytest.mark.parametrize(("number", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 75)])
def test_temporary_folders_are_removed_where_no_jax_works(tmp_path, number, code):
  process = start(f"""
import tempfile, time
with endings.unwound(), tempfile.TemporaryDirectory(dir={str(tmp_path)!r}):
  print('up', flush=True)
  try:
    time.sleep(60)
  except Exception:
    time.sleep(60)
""")
  assert list(tmp_path.iterdir())
  process.send_signal(number)
  found, (line,) = ended(process)
  assert found == code and line.endswith("; nothing was written") and not list(tmp_path.iterdir())


def test_a_warning_is_said_once(capsys):
  def call():
    for text in ("a file is skipped", "another", "a file is skipped"):
      for number in range(2):
        warnings.warn_explicit(text, UserWarning, f"{number}.py", number)

  for _ in range(2):
    endings.guarded(call)
    assert capsys.readouterr().err.splitlines() == [
      "latents: warning: a file is skipped",
      "latents: warning: another",
    ]


SPEAKS = STEPS.replace("time.sleep(LAST)", "time.sleep(0.3); print('x' * 10_000, file=sys.stderr)")


def test_a_reader_that_is_gone_does_not_change_how_it_ends():
  """`latents run ... 2>&1 | tee log`: ^C ends tee too."""
  process = start(SPEAKS)
  process.stderr.close()
  process.send_signal(signal.SIGINT)
  assert process.wait(timeout=20) == 130


def test_a_terminal_that_is_closed(tmp_path):
  """The state is saved although nobody hears of it."""
  mark = tmp_path / "saved"
  body = SPEAKS.replace("stop.check()", f"stop.code and open({str(mark)!r}, 'w').close(); stop.check()")
  number, terminal = pty.fork()
  if number == 0:
    os.execve(sys.executable, [sys.executable, "-c", program(body)], ENVIRONMENT)
  assert b"up" in os.read(terminal, 100)
  time.sleep(0.3)  # its print has come to its end
  os.close(terminal)
  _, status = os.waitpid(number, 0)
  assert os.waitstatus_to_exitcode(status) == 75 and mark.exists()


@pytest.mark.parametrize("wait", [0, 0.2, 0.5, 1.0, 2.0])
def test_an_interrupt_while_importing_is_no_traceback(wait, tmp_path):
  code = f"import sys\nsys.argv[:] = ['latents', 'sample', {str(tmp_path)!r}]\nfrom latents import main\n"
  code += "print('up', flush=True)\nmain.entry()"
  pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "text": True}
  process = subprocess.Popen([sys.executable, "-c", code], env=ENVIRONMENT, **pipes)
  assert process.stdout.readline() == "up\n"
  time.sleep(wait)
  process.send_signal(signal.SIGINT)
  found, lines = ended(process)
  if found != 2:  # it had come to its end before
    assert (found, lines) in ((130, ["latents: interrupted; the same command goes on"]), (-signal.SIGINT, []))
