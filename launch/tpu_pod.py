"""A Cloud TPU slice: python -m launch.tpu_pod --name x --zone z --accelerator-type v6e-64 ... -- run experiments/x.py

Asks for a queued resource (or takes a TPU VM that is there: --existing), waits until it is active, copies
the committed tree to all workers, and starts there the same `latents ... --distributed`, which a broken
ssh does not end. Follows worker 0's log and returns the exit code. After a preemption (the slice is gone,
or exit code 75) it makes the slice anew where it must and starts again. At the end the slice is deleted,
unless --keep or --existing. Ctrl-C leaves the job running; --attach follows it again.

The disks of a spot slice go with it: give --runs a folder on storage that all workers see and that stays,
mounted by --setup, e.g. --setup 'mkdir -p ~/b && gcsfuse my-bucket ~/b' -- run x --runs '/home/me/b/runs'.
"""

import dataclasses
import re
import time
from collections.abc import Sequence
from pathlib import Path

from latents import main as cli
from latents.errors import UserError
from latents.machine import environment
from launch import command
from launch.tpu_job import CODES, JOB, START, STOP, TAIL, script

READY = ("ACTIVE", "READY")  # of a queued resource, of a TPU VM
LOST = ("SUSPENDING", "SUSPENDED", "FAILED", "DELETING", "PREEMPTED", "TERMINATED", "STOPPING", "STOPPED")
START_TRIES = 3
NAME = re.compile(r"[a-z]([a-z0-9-]{0,60}[a-z0-9])?")


@dataclasses.dataclass(frozen=True, kw_only=True)
class Pod:
  """A TPU slice as gcloud names it. With `existing` a TPU VM, else a queued resource with one node of its name."""

  name: str
  zone: str
  project: str | None = None
  accelerator_type: str | None = None
  runtime_version: str | None = None
  spot: bool = False
  existing: bool = False

  def __post_init__(self):
    if not NAME.fullmatch(self.name):
      raise UserError(f"--name {self.name}: small letters, digits and dashes, a letter first")
    if not self.existing and not (self.accelerator_type and self.runtime_version):
      raise UserError("a new slice needs --accelerator-type and --runtime-version; for one that is there: --existing")

  def gcloud(self, verb: str, *words: str) -> list[str]:
    """A gcloud command on this slice."""
    kind = "tpu-vm" if self.existing else "queued-resources"
    place = [f"--zone={self.zone}", *([f"--project={self.project}"] if self.project else []), "--quiet"]
    return ["gcloud", "compute", "tpus", kind, verb, *words, *place]

  def create(self) -> list[str]:
    """Ask for the slice."""
    sort = [f"--accelerator-type={self.accelerator_type}", f"--runtime-version={self.runtime_version}"]
    return self.gcloud("create", self.name, f"--node-id={self.name}", *sort, *(["--spot"] if self.spot else []))

  def delete(self) -> list[str]:
    """Delete the slice and the request for it."""
    return self.gcloud("delete", self.name, "--force")

  def describe(self) -> list[str]:
    """Print its state."""
    return self.gcloud("describe", self.name, f"--format=value({'state' if self.existing else 'state.state'})")

  def copy(self, files: Sequence[Path]) -> list[str]:
    """Copy files to the home folder of all workers."""
    return self.gcloud("scp", *map(str, files), f"{self.name}:", "--worker=all")

  def ssh(self, worker: int | str, text: str) -> list[str]:
    """Run a line of shell on one worker or on 'all'."""
    return self.gcloud("ssh", self.name, f"--worker={worker}", f"--command={text}")


@dataclasses.dataclass(frozen=True, kw_only=True)
class Session:
  """One launch on a pod. setup: shell lines that run on each worker first; times in seconds."""

  pod: Pod
  runner: command.Runner
  setup: str = ""
  wait_s: float = 24 * 3600.0  # for a slice to become active
  poll_s: float = 40.0  # between looks at its state; longer than the notice before a spot slice goes, 30 s
  straggle_s: float = 300.0  # what the other workers get once one has ended
  restarts: int = 100
  keep: bool = False

  def launch(self, words: Sequence[str], attach: bool = False) -> int:
    """Run a command on the pod to its end; its exit code. attach: it runs there already."""
    owned = not self.pod.existing
    if owned and not attach:
      self.runner.run(self.pod.create())
    try:
      code = self._run(words, attach)
    except KeyboardInterrupt:
      end = self.pod.delete() if owned else self.pod.ssh("all", STOP)
      command.say(f"{self.pod.name} is left as it is: --attach follows it again; to end it: {command.quoted(end)}")
      return 130
    except UserError:
      self._clean(owned)
      raise
    self._clean(owned)
    return code

  def _run(self, words: Sequence[str], attach: bool) -> int:
    for attempt in range(self.restarts + 1):
      if not attach:
        self._wait_until_ready()
      code = self._follow() if attach or self._start(words) else command.PREEMPTED
      attach = False
      if code != command.PREEMPTED or attempt == self.restarts:
        return code
      command.say(f"{self.pod.name} was preempted; starts again ({attempt + 1} of at most {self.restarts})")
      self._pause()  # a worker that exits with 75 has had its notice: look when the slice has gone
      if self._state() in LOST:
        self._renew()
    return command.PREEMPTED

  def _renew(self) -> None:
    if self.pod.existing:
      raise UserError(f"{self.pod.name} is gone; the state is saved where --runs lies: run again on another TPU")
    self.runner.run(self.pod.delete())
    self.runner.run(self.pod.create())

  def _wait_until_ready(self) -> None:
    end, shown = time.monotonic() + self.wait_s, ""
    while (state := self._state()) not in READY:
      if state != shown:
        command.say(f"{self.pod.name}: {state}")
        shown = state
      if state == "FAILED" or (self.pod.existing and state in LOST):
        raise UserError(f"{self.pod.name} is {state}")
      if time.monotonic() > end:
        raise UserError(f"{self.pod.name} is still {state} after {self.wait_s / 60:g} minutes (--wait)")
      if state in LOST:
        self._renew()
      self._pause()

  def _start(self, words: Sequence[str]) -> bool:
    """Copy tree and job script, and start the job on all workers; False if the slice goes meanwhile."""
    for left in reversed(range(START_TRIES)):
      try:
        self._copy_and_start(words)
      except UserError:
        self._pause()
        if self._state() in LOST:
          return False
        if not left:
          raise
      else:
        break
    return True

  def _copy_and_start(self, words: Sequence[str]) -> None:
    folder = environment.cache_folder() / "launch" / self.pod.name
    tree, job = folder / "latents-tree.tar.gz", folder / JOB
    text = script(words, self.setup)
    if self.runner.dry:
      print(f"# {job}\n{text}")
    else:
      folder.mkdir(parents=True, exist_ok=True)
      job.write_text(text)
    if self.runner.read(["git", "-C", str(command.ROOT), "status", "--porcelain"], dry="", check=False):
      command.say("warning: changes that are not committed are not copied")
    self.runner.run(["git", "-C", str(command.ROOT), "archive", "--format=tar.gz", f"--output={tree}", "HEAD"])
    self.runner.run(self.pod.copy([tree, job]))
    self.runner.run(self.pod.ssh("all", START))

  def _follow(self) -> int:
    """Show worker 0's log until all workers have ended; the exit code of the job, 75 if the slice is lost."""
    line, first_end = 1, None
    while True:
      line += self.runner.stream(self.pod.ssh(0, TAIL.format(line=line)))
      codes = self._codes()
      ended = [int(code) for code in codes if code != "running"]
      if codes and len(ended) == len(codes):
        return _joint(ended)
      if ended and first_end is None:
        first_end = time.monotonic()
      if first_end is not None and time.monotonic() - first_end > self.straggle_s:
        command.say(f"{self.pod.name}: {len(codes) - len(ended)} of {len(codes)} workers do not end; stopped")
        self.runner.run(self.pod.ssh("all", STOP), check=False)
        return _joint(ended) or 1
      state = self._state()
      if state in LOST:
        return command.PREEMPTED
      if not codes:
        command.say(f"no answer from {self.pod.name} ({state}); tries again")
      self._pause()

  def _codes(self) -> list[str]:
    """Each worker's exit code, or 'running'; empty when they cannot be reached."""
    text = self.runner.read(self.pod.ssh("all", CODES), dry="exit=0", check=False)
    return re.findall(r"exit=(\d+|running)", text)

  def _state(self) -> str:
    return self.runner.read(self.pod.describe(), dry=READY[0], check=False) or "UNKNOWN"

  def _pause(self) -> None:
    if not self.runner.dry:
      time.sleep(self.poll_s)

  def _clean(self, owned: bool) -> None:
    if owned and not self.keep:
      self.runner.run(self.pod.delete(), check=False)


def _joint(codes: Sequence[int]) -> int:
  """One exit code for all workers: 75 if one was preempted (the others may have lost it), else the worst."""
  return command.PREEMPTED if command.PREEMPTED in codes else max(codes)


def _parser() -> cli.Parser:
  made = command.parser("tpu_pod", "A Cloud TPU slice: make, start, follow, delete.")
  made.add_argument("--name", required=True, help="of the slice")
  made.add_argument("--zone", required=True)
  made.add_argument("--project", help="default: gcloud's")
  made.add_argument("--accelerator-type", help="e.g. v6e-64")
  made.add_argument("--runtime-version", help="e.g. v2-alpha-tpuv6e")
  made.add_argument("--spot", action="store_true", help="cheaper, may be preempted")
  made.add_argument("--existing", action="store_true", help="use a TPU VM that is there; it is never deleted")
  made.add_argument("--attach", action="store_true", help="only follow the job that runs there")
  made.add_argument("--setup", default="", metavar="SHELL", help="runs on each worker first, e.g. to mount a bucket")
  made.add_argument("--wait", type=command.count, default=24 * 60, metavar="MINUTES", help="for the slice")
  made.add_argument("--restarts", type=command.limit, default=100, help="after preemptions")
  made.add_argument("--keep", action="store_true", help="do not delete the slice at the end")
  return made


def main(argv: Sequence[str] | None = None) -> int:
  """The command line; the exit code of `latents` on the slice."""

  def call() -> int:
    own, rest = command.parse(_parser(), argv)
    pod = Pod(**{field.name: getattr(own, field.name) for field in dataclasses.fields(Pod)})
    options = {"setup": own.setup, "wait_s": own.wait * 60.0, "restarts": own.restarts, "keep": own.keep}
    session = Session(pod=pod, runner=command.Runner(own.dry_run), **options)
    return session.launch([*rest, "--distributed"], own.attach)

  return command.guarded(call)


if __name__ == "__main__":
  command.entry(main)
