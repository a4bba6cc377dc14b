"""The machine: what must be set before jax starts, what devices and versions there are, what to say of them."""

import contextlib
import ctypes
import importlib.metadata
import os
import platform
from pathlib import Path
from typing import Any

from latents.errors import first_line
from latents.machine.disk import on_disk

PACKAGES = ("jax", "jaxlib", "flax", "optax", "orbax-checkpoint", "grain", "tensorflow-datasets", "tyro", "numpy")

TPU_LOCK = Path("/tmp/libtpu_lockfile")

# glibc's mallopt parameters: never mmap, never trim, grow by 256 MiB, one arena
MALLOPT = ((-4, 0), (-1, 2**31 - 1), (-2, 256 << 20), (-8, 1))


def prepare(memory: bool = True) -> None:
  """Settings for speed, made once by the command line before jax starts; what the user has set stays.

  The compile cache lies in $LATENTS_CACHE (default ~/.cache/latents). On CPU the allocator keeps freed
  memory: XLA maps its temporary buffer anew at every step otherwise, which costs a fifth of the time;
  `memory` False leaves it as it is.
  """
  os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")
  os.environ.setdefault("JAX_COMPILATION_CACHE_DIR", str(cache_folder() / "jax"))
  os.environ.setdefault("JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS", "0.5")
  os.environ.setdefault("JAX_PERSISTENT_CACHE_MIN_ENTRY_SIZE_BYTES", "-1")
  if memory and "MALLOC_MMAP_MAX_" not in os.environ and not accelerators():
    keep_memory()


def cache_folder() -> Path:
  """Where compiled programs are kept between runs."""
  return on_disk(os.environ.get("LATENTS_CACHE") or Path.home() / ".cache" / "latents")


def keep_memory() -> bool:
  """Tell glibc to keep freed memory for this process; False where the C library is another."""
  try:
    mallopt = ctypes.CDLL("libc.so.6").mallopt
  except (OSError, AttributeError):
    return False
  return all(mallopt(name, value) for name, value in MALLOPT)


def return_memory() -> None:
  """Hand back to the system what glibc keeps and nothing uses.

  With `keep_memory` a step's temporary buffer finds its old place split by something small now and then, and takes
  new memory: without this a process comes to hold three or four such buffers, and what the compiler needed.
  """
  with contextlib.suppress(OSError, AttributeError):
    ctypes.CDLL("libc.so.6").malloc_trim(0)


def accelerators() -> list[str]:
  """Accelerators that the operating system shows, whether or not jax can use them."""
  found = [f"NVIDIA GPU {p.name}" for p in sorted(Path("/proc/driver/nvidia/gpus").glob("*"))]
  found += [f"NVIDIA GPU {p.name}" for p in sorted(Path("/dev").glob("nvidia[0-9]*"))] if not found else []
  found += [f"TPU {p.name}" for p in sorted(Path("/dev").glob("accel[0-9]*"))]
  found += [f"TPU {p.name}" for p in sorted(Path("/dev/vfio").glob("[0-9]*"))] if os.environ.get("TPU_NAME") else []
  return found


def describe() -> dict[str, Any]:
  """Versions and devices, to be stored with every number that is measured. Starts jax."""
  import jax

  devices = jax.devices()
  versions = {name: version(name) for name in PACKAGES}
  return {
    "python": platform.python_version(),
    **{name: found for name, found in versions.items() if found},
    "devices": f"{len(devices)} x {devices[0].device_kind} ({devices[0].platform})",
    "processes": jax.process_count(),
    "cpu_cores": len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count(),
    "system": f"{platform.system()} {platform.machine()}",
  }


def version(package: str) -> str | None:
  """The installed version, or None."""
  try:
    return importlib.metadata.version(package)
  except importlib.metadata.PackageNotFoundError:
    return None


def tpu_lock(path: Path) -> list[str]:
  """A line on libtpu's lock if it is there: who holds it, or that it is left over; none where it is not."""
  if not path.exists():
    return []
  holders = []
  for link in Path("/proc").glob("[0-9]*/fd/*"):
    try:
      if os.readlink(link) == str(path):
        holders.append(link.parts[2])
    except OSError:  # it has ended, or is another user's
      continue
  if holders:
    return [f"{path} is held by process {', '.join(sorted(set(holders)))}, which uses the TPU: wait for it, or end it"]
  return [f"{path} is left over from a process that was killed, and libtpu takes it for one that runs: remove it"]


def problems() -> list[str]:
  """What is wrong with this machine for training, a line each; empty when all is well. Starts jax."""
  found = []
  for name in PACKAGES:
    if version(name) is None:
      found.append(f"the package {name} is not installed")
  # where there is no TPU its compiler leaves the file too; looked at first: jax may wait for it
  lock = tpu_lock(TPU_LOCK) if any(name.startswith("TPU") for name in accelerators()) else []
  try:
    import jax

    backend = jax.default_backend()
  except Exception as error:  # noqa: BLE001  (whatever a broken plugin raises)
    return [*found, *lock, f"jax does not start: {first_line(error)}"]
  if backend == "cpu":
    found += lock
  present = accelerators()
  if backend == "cpu" and present and os.environ.get("JAX_PLATFORMS") != "cpu":
    extra = "tpu" if present[0].startswith("TPU") else "cuda"
    found.append(f"{present[0]} is there, but jax runs on the CPU: pip install -e '.[{extra}]'")
  return found
