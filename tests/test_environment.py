"""What the process keeps of freed memory, and gives back."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

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
