"""N processes on this machine's CPU: python -m launch.multiprocess --processes 2 -- run experiments/x.py ...

What runs on several hosts, tried on one: each process has --devices-per-process CPU devices of its own.
They find each other by LATENTS_COORDINATOR (127.0.0.1:port), LATENTS_PROCESSES and LATENTS_PROCESS. Each
line of output gets its process's number in front. When one fails the others are ended within --grace
seconds, with a line that names it, and its exit code is returned. SIGTERM (a preemption) and Ctrl-C are
passed on to all. No process outlives this one: each leads a process group, which is killed at the end,
by a guard process if this one is killed itself.
"""

import contextlib
import dataclasses
import os
import re
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Mapping, Sequence
from typing import Any

from latents.errors import UserError
from launch import command

POLL_S = 0.05

# Reads the numbers of groups, one a line. If its stdin ends without 'done' the launcher was killed.
GUARD = """
import os, signal, sys, time
def send(number):
  sent = 0
  for group in groups:
    try: os.killpg(group, number); sent += 1
    except OSError: pass
  return sent
words = sys.stdin.read().split()
if "done" not in words:
  groups = [int(word) for word in words]
  send(signal.SIGTERM)
  end = time.monotonic() + float(sys.argv[1])
  while send(0) and time.monotonic() < end: time.sleep(0.05)
  send(signal.SIGKILL)
"""


@dataclasses.dataclass(frozen=True, kw_only=True)
class Group:
  """How many processes, devices in each, where the coordinator listens (None: a free port), seconds to end."""

  processes: int = 2
  devices: int = 1
  port: int | None = None
  grace: float = 20.0

  def settings(self, index: int, port: int, given: Mapping[str, str]) -> dict[str, str]:
    """The environment variables of one process, on top of `given`."""
    count = "--xla_force_host_platform_device_count"
    kept = re.sub(rf"{count}=\S*", "", given.get("XLA_FLAGS", "")).split()
    return {
      "JAX_PLATFORMS": "cpu",
      "XLA_FLAGS": " ".join([*kept, f"{count}={self.devices}"]),
      "PYTHONUNBUFFERED": "1",
      "LATENTS_COORDINATOR": f"127.0.0.1:{port}",
      "LATENTS_PROCESSES": str(self.processes),
      "LATENTS_PROCESS": str(index),
    }


def launch(words: Sequence[str], group: Group, runner: command.Runner) -> int:
  """Run a command in every process of the group; 0, or the exit code of the first that failed."""
  port = group.port or free_port()
  settings = [group.settings(index, port, os.environ) for index in range(group.processes)]
  if runner.dry:
    return max(runner.run(words, made) for made in settings)
  running = _Running(group.grace)
  try:
    for made in settings:
      running.start(words, made)
    return running.wait()
  finally:
    running.close()


def free_port() -> int:
  """A port of 127.0.0.1 that nothing listens on now."""
  with socket.socket() as made:
    made.bind(("127.0.0.1", 0))
    return made.getsockname()[1]


class _Running:
  """The processes of one launch, from the first start to the last one's end."""

  def __init__(self, grace: float):
    self.grace = grace
    self.processes: list[subprocess.Popen] = []
    self.readers: list[threading.Thread] = []
    quiet = {"stdout": subprocess.DEVNULL, "stderr": subprocess.DEVNULL, "start_new_session": True}
    guard = [sys.executable, "-I", "-S", "-c", GUARD, f"{grace:g}"]
    self.guard = subprocess.Popen(guard, stdin=subprocess.PIPE, text=True, **quiet)
    self.lock = threading.Lock()
    self.deadline: float | None = None  # when what still runs is killed
    self.before = {n: signal.signal(n, self._pass_on) for n in (signal.SIGTERM, signal.SIGINT)}

  def start(self, words: Sequence[str], settings: Mapping[str, str]) -> None:
    """One more process, the leader of its own group. UserError if the program cannot run."""
    output: dict[str, Any] = {"stdout": subprocess.PIPE, "stderr": subprocess.STDOUT, "text": True, "errors": "replace"}
    options = {"stdin": subprocess.DEVNULL, "start_new_session": True, "env": os.environ | dict(settings)}
    try:
      process = subprocess.Popen(words, **output, **options)
    except OSError as error:
      raise UserError(f"cannot run {words[0]}: {error.strerror}") from None
    self.processes.append(process)
    self._tell_guard(f"{process.pid}\n")
    reader = threading.Thread(target=self._copy, args=(len(self.readers), process), daemon=True)
    reader.start()
    self.readers.append(reader)

  def wait(self) -> int:
    """Until all have ended: 0, or the exit code of the first that failed."""
    failed: int | None = None
    while None in [process.poll() for process in self.processes]:
      if failed is None and (index := self._failure()) is not None:
        failed = command.exit_code(self.processes[index].returncode)
        self._end_others(index, failed)
      if self.deadline is not None and time.monotonic() > self.deadline:
        self._signal(signal.SIGKILL)
      time.sleep(POLL_S)
    if failed is None and (index := self._failure()) is not None:
      failed = command.exit_code(self.processes[index].returncode)
      command.say(self._ended(index))
    return failed or 0

  def close(self) -> None:
    """Kill what is left of the groups, pass on the last lines, let the guard go."""
    self._signal(signal.SIGKILL, ended=True)
    for process in self.processes:
      process.wait()
    for reader in self.readers:
      reader.join(timeout=2)  # a grandchild that left its group may hold the pipe
    self._tell_guard("done")
    self.guard.communicate()
    for number, handler in self.before.items():
      signal.signal(number, handler)

  def _failure(self) -> int | None:
    return next((i for i, process in enumerate(self.processes) if process.returncode), None)

  def _ended(self, index: int) -> str:
    process = self.processes[index]
    code = process.returncode
    how = f"was killed by {signal.Signals(-code).name}" if code < 0 else f"ended with exit code {code}"
    return f"process {index} (pid {process.pid}) {how}"

  def _end_others(self, index: int, code: int) -> None:
    command.say(f"{self._ended(index)}; the others are ended within {self.grace:g} s")
    self.deadline = time.monotonic() + self.grace
    if code != command.PREEMPTED:  # after a preemption the others end themselves: let them finish saving
      self._signal(signal.SIGTERM)

  def _pass_on(self, number: int, _: Any) -> None:
    self._signal(signal.Signals(number))
    if number == signal.SIGINT:
      self.deadline = time.monotonic() + self.grace

  def _signal(self, number: signal.Signals, ended: bool = False) -> None:
    """To the groups whose leaders run, or with `ended` to all: a group may outlive its leader."""
    for process in self.processes:
      if ended or process.returncode is None:
        with contextlib.suppress(ProcessLookupError, PermissionError):
          os.killpg(process.pid, number)

  def _copy(self, index: int, process: subprocess.Popen) -> None:
    for line in process.stdout or ():  # a progress bar's carriage returns end lines too
      with self.lock, contextlib.suppress(OSError, ValueError):
        sys.stdout.write(f"[{index}] {line.rstrip()}\n")
        sys.stdout.flush()

  def _tell_guard(self, text: str) -> None:
    if self.guard.stdin is not None:
      with contextlib.suppress(OSError):
        self.guard.stdin.write(text)
        self.guard.stdin.flush()


def main(argv: Sequence[str] | None = None) -> int:
  """The command line; 0, or the exit code of the first process that failed."""
  made = command.parser("multiprocess", "Several processes on this machine's CPU.")
  made.add_argument("--processes", type=command.count, default=2, metavar="N")
  made.add_argument("--devices-per-process", type=command.count, default=1, metavar="K")
  made.add_argument("--port", type=command.count, help="of the coordinator (default: a free one)")
  made.add_argument("--grace", type=command.count, default=20, metavar="SECONDS", help="for the others after a failure")

  def call() -> int:
    own, rest = command.parse(made, argv)
    group = Group(processes=own.processes, devices=own.devices_per_process, port=own.port, grace=own.grace)
    return launch([*command.LATENTS, *rest, "--distributed"], group, command.Runner(own.dry_run))

  return command.guarded(call)


if __name__ == "__main__":
  command.entry(main)
