"""One process on this machine: python -m launch.local [--platform gpu] [--resume N] -- run experiments/x.py ...

Sets what must stand in the environment before Python starts, then becomes `latents`. What the user has
set stays. With `--resume N` it stays beside `latents` instead and runs it again while it exits with 75
(preempted, state saved), at most N times; a SIGTERM is passed on and ends the resuming.
"""

import os
from collections.abc import Mapping, Sequence

from latents.machine import environment, xla
from launch import command

GPU_FLAGS = (
  "--xla_gpu_enable_latency_hiding_scheduler=true",  # communication of gradients beside computation
  "--xla_gpu_triton_gemm_any=true",  # matrix products fused with what surrounds them
)

# glibc's variables for the parameters of environment.MALLOPT: they reach worker processes too
MALLOC = {-4: "MALLOC_MMAP_MAX_", -1: "MALLOC_TRIM_THRESHOLD_", -2: "MALLOC_TOP_PAD_", -8: "MALLOC_ARENA_MAX"}


def settings(platform: str, given: Mapping[str, str]) -> dict[str, str]:
  """Environment variables for a platform, 'cpu', 'gpu' or 'auto'; only those that `given` does not have.

  auto: 'gpu' where the system shows an NVIDIA GPU, 'cpu' where it shows no accelerator, else neither.
  """
  if platform == "auto":
    found = environment.accelerators()
    platform = "gpu" if found and found[0].startswith("NVIDIA") else "other" if found else "cpu"
  made = {"JAX_COMPILATION_CACHE_DIR": str(environment.cache_folder() / "jax")}
  if platform == "cpu":
    made |= {"JAX_PLATFORMS": "cpu"} | {MALLOC[name]: str(value) for name, value in environment.MALLOPT}
  if platform == "gpu":
    made |= {"XLA_PYTHON_CLIENT_MEM_FRACTION": "0.9"}
  made = {name: value for name, value in made.items() if name not in given}
  return made | (xla.flags(given, GPU_FLAGS) if platform == "gpu" else {})


def launch(words: Sequence[str], platform: str, resume: int, runner: command.Runner) -> int:
  """Run a command with the settings of the platform; its exit code."""
  made = settings(platform, os.environ)
  if not resume:
    return runner.become(words, made)
  for attempt in range(resume + 1):
    code, asked = runner.supervise(words, made)
    if code != command.PREEMPTED or asked or attempt == resume:
      return code
    command.say(f"preempted; runs again ({attempt + 1} of at most {resume})")
  return command.PREEMPTED


def main(argv: Sequence[str] | None = None) -> int:
  """The command line; the exit code of `latents`."""
  made = command.parser("local", "One process on this machine.")
  made.add_argument("--platform", choices=("auto", "cpu", "gpu"), default="auto")
  made.add_argument("--resume", type=command.limit, default=0, metavar="N", help="runs after a preemption")

  def call() -> int:
    own, rest = command.parse(made, argv)
    return launch([*command.LATENTS, *rest], own.platform, own.resume, command.Runner(own.dry_run))

  return command.guarded(call)


if __name__ == "__main__":
  command.entry(main)
