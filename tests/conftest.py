"""Tests run on the CPU, with compiled programs kept between runs and compiled with little optimisation:
most of a test's time is the compiler's. Processes that tests start inherit both."""

import gc
import importlib.util
import os
import signal
from pathlib import Path

import pytest

from latents.machine import xla

os.environ.setdefault("JAX_PLATFORMS", "cpu")  # a libtpu wheel would be waited for otherwise
os.environ.setdefault("JAX_COMPILATION_CACHE_DIR", str(Path.home() / ".cache" / "latents" / "jax-tests"))
os.environ.setdefault("JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS", "0.3")
os.environ.setdefault("JAX_PERSISTENT_CACHE_MIN_ENTRY_SIZE_BYTES", "-1")
os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")
# Run by a script in the background, tests inherit that ^C is ignored, and so would every process that they start.
for number in (signal.SIGINT, signal.SIGHUP):
  if signal.getsignal(number) is signal.SIG_IGN:
    signal.signal(number, signal.default_int_handler if number == signal.SIGINT else signal.SIG_DFL)
FAST = (
  "--xla_backend_optimization_level=0",
  "--xla_llvm_disable_expensive_passes=true",
  "--xla_cpu_use_fusion_emitters=false",  # jax 0.10 has it, 0.11 does not
)
os.environ.update(xla.flags(os.environ, FAST))


@pytest.fixture(scope="module", autouse=True)
def _programs_end_with_their_file():
  """What a file has traced and compiled is of no use to the next one; with the programs of thousands of tests a process
  would hold gigabytes, and become slow."""
  yield
  import jax

  jax.clear_caches()
  gc.collect()


# The parity suite needs the extra `parity`; CI runs it as a step of its own, where torch is installed.
collect_ignore = [] if importlib.util.find_spec("torch") else ["parity"]
