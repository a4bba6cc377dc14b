"""What the process keeps of freed memory, and gives back; which of XLA's flags it may ask for."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from latents.machine import xla

ROOT = Path(__file__).parents[1]
PROGRAM = """
import os
from latents.machine import environment
assert environment.keep_memory()
def resident():
  with open("/proc/self/statm") as file:
    return int(file.read().split()[1]) * os.sysconf("SC_PAGE_SIZE") >> 20
before = resident()
large, small = [bytearray(b"x" * (16 << 20)) for _ in range(8)], bytearray(b"x" * 1000)
del large
kept = resident()
environment.return_memory()
print(before, kept, resident())
"""


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="glibc's allocator")
def test_freed_memory_is_kept_until_it_is_asked_for():
  done = subprocess.run(
    [sys.executable, "-c", PROGRAM], env={**os.environ, "PYTHONPATH": str(ROOT)}, capture_output=True, text=True
  )
  assert done.returncode == 0, done.stderr
  before, kept, after = map(int, done.stdout.split())
  assert kept - before > 120 and after - before < 40, (before, kept, after)


def test_flags_that_the_installed_xla_does_not_know_are_not_asked_for():
  """jax 0.11 lacks a flag of 0.10, and XLA ends a process that names an unknown one."""
  level = "--xla_backend_optimization_level=0"
  assert xla.known([level, "--xla_no_such_flag=1", "--xla_backend_optimization=0"]) == [level]
  assert xla.flags({}, ["--xla_no_such_flag=1"]) == {}
  assert xla.flags({"XLA_FLAGS": "--a=1"}, ["--a=2", "--xla_no_such_flag=1", level]) == {"XLA_FLAGS": f"--a=1 {level}"}
  assert xla.flags({"XLA_FLAGS": level}, [level.replace("0", "3")]) == {}


def test_flags_where_there_is_no_library(monkeypatch):
  monkeypatch.setattr(xla, "LIBRARY", "none.so")
  assert xla.known(["--xla_backend_optimization_level=0"]) == []
