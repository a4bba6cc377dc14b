"""A worker that is killed, ends, raises or hangs is an error in a stated time; a killed run leaves no worker."""

import dataclasses
import os
import signal
import subprocess
import sys
import threading
import time
import warnings
from pathlib import Path

import numpy as np
import pytest

from latents.data import Source, batches
from latents.data import stream as streams
from latents.data.source import Broken, Decoded
from latents.errors import UserError


class Stubborn(Exception):
  """Cannot be pickled: Grain's queue drops it, and its reader would wait for ever."""

  def __reduce__(self):
    raise TypeError("no")


class Cracked(Exception):
  """Can be pickled but not rebuilt."""

  def __init__(self, one, two):
    super().__init__(f"{one} {two}")


@dataclasses.dataclass(frozen=True)
class Trouble(Source):
  """1,000 examples; example 0 does what `what` says."""

  what: str = ""

  @property
  def shape(self):
    return (2, 2, 1)

  def records(self, split):
    if self.what == "closed":
      raise UserError("no such folder")
    return Decoded(1000, self.make)

  def make(self, i):
    if i == 0:
      act(self.what)
    return {"x": np.full((2, 2, 1), i % 256, np.uint8)}


def act(what):
  match what:
    case "exit":
      os._exit(0)
    case "hang":
      time.sleep(1e6)
    case "stubborn":
      raise Stubborn("a disk of straw")
    case "cracked":
      raise Cracked("a disk", "of clay")
    case "broken":
      raise Broken("example 0 of many")


def endless(source, workers=1, batch=500):
  """A stream that meets example 0 at the second step at the latest."""
  return batches(source, split="train", batch=batch, seed=0, workers=workers)


def drain(stream, steps=4):
  with stream:
    for _ in range(steps):
      next(stream)


def test_signals_to_the_group_are_the_parents_and_a_kill_is_an_error():
  with endless(Trouble(), workers=2, batch=4) as stream:
    next(stream), next(stream)
    crew = streams.crew()
    assert len(crew) == 2
    for process in crew:  # what a scheduler or Ctrl-C sends to every process of a run
      os.kill(process.pid, signal.SIGTERM)
      os.kill(process.pid, signal.SIGINT)
    for _ in range(40):
      next(stream)
    os.kill(crew[0].pid, signal.SIGKILL)
    begin = time.monotonic()
    with pytest.raises(UserError, match=r"killed by SIGKILL.*fewer workers"):
      for _ in range(40):
        next(stream)
    assert time.monotonic() - begin < 10
    with pytest.raises(UserError, match="killed by SIGKILL"):  # and again, not a hang
      next(stream)
  assert not streams.crew()


def test_a_worker_that_ends_without_a_word_is_an_error():
  begin = time.monotonic()
  with pytest.raises(UserError, match="a data worker ended with exit code"):
    drain(endless(Trouble("exit")))
  assert time.monotonic() - begin < 60


def test_a_worker_that_hangs_is_an_error_in_the_stated_time(monkeypatch):
  monkeypatch.setattr(streams, "STALL", 4.0)
  monkeypatch.setattr(streams, "OPENING", 30.0)  # a busy machine takes its time to start a process
  monkeypatch.setattr(streams, "NOTICE", 1.0)
  stream = endless(Trouble("hang"), batch=250)
  with warnings.catch_warnings():
    warnings.simplefilter("ignore")
    while not stream.crew:  # the start of a process is not what is timed
      next(stream)
  begin = time.monotonic()
  with pytest.warns(UserWarning, match="no data for"), pytest.raises(UserError, match="data workers hangs"):
    drain(stream)
  assert 4 <= time.monotonic() - begin < 25  # Grain alone would wait 25 s to close it, after an endless wait
  assert not streams.crew()


def test_a_thread_that_hangs_is_an_error_too(monkeypatch):
  held = threading.Event()
  monkeypatch.setattr(time, "sleep", lambda _: held.wait(60))
  monkeypatch.setattr(streams, "STALL", 1.0)
  monkeypatch.setattr(streams, "OPENING", 1.0)
  with pytest.raises(UserError, match="the disk may not answer"):
    drain(endless(Trouble("hang"), workers=0))
  held.set()


@pytest.mark.parametrize(
  "what,error,match",
  [
    ("stubborn", RuntimeError, "Stubborn: a disk of straw"),
    pytest.param("cracked", RuntimeError, "Cracked: a disk of clay", marks=pytest.mark.slow),
    pytest.param("closed", UserError, "no such folder", marks=pytest.mark.slow),
  ],
)
def test_what_a_worker_raises_arrives(what, error, match):
  with pytest.raises(error, match=match):
    drain(endless(Trouble(what)))


def test_portable_keeps_what_can_travel():
  for error in (UserError("a"), OSError(28, "full"), KeyError("k")):
    assert streams.portable(error) is error
  assert type(streams.portable(Cracked(1, 2))) is type(streams.portable(Stubborn("x"))) is RuntimeError


def test_close_ends_an_open_stream_at_once_and_twice():
  stream = endless(Trouble(), workers=0)
  next(stream)
  begin = time.monotonic()
  stream.close()
  stream.close()
  assert time.monotonic() - begin < 3


KILLED = """
import os, signal, sys
from tests.test_data_stream import Trouble, endless, streams
if __name__ == "__main__":
  stream = endless(Trouble(), workers=2, batch=4)
  next(stream), next(stream)
  with open(sys.argv[1], "w") as file:
    print(*[p.pid for p in streams.crew()], file=file)
  os.kill(os.getpid(), signal.SIGKILL)
"""


def test_workers_of_a_killed_run_end(tmp_path):
  script = tmp_path / "killed.py"
  script.write_text(KILLED)
  root = str(Path(__file__).parents[1])
  env = {**os.environ, "PYTHONPATH": root}
  pids = tmp_path / "pids"  # not a pipe: workers that live on would hold it open
  done = subprocess.run([sys.executable, str(script), str(pids)], env=env, timeout=120)
  assert done.returncode == -signal.SIGKILL
  workers = [int(pid) for pid in pids.read_text().split()]
  assert len(workers) == 2
  limit = time.monotonic() + 15
  while any(map(runs, workers)) and time.monotonic() < limit:
    time.sleep(0.2)
  left = [pid for pid in workers if runs(pid)]
  for pid in left:
    os.kill(pid, signal.SIGKILL)
  assert not left, "workers outlived the run that was killed"


def runs(pid):
  try:
    return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
  except OSError:
    return False
