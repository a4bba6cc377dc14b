"""A batch job: python -m launch.slurm --time 24:00:00 --nodes 4 --gpus-per-node 8 -- run experiments/x.py ...

Writes an sbatch script, submits it and prints the job's number. One task a node, which sees all GPUs of
the node; jax finds the other nodes by Slurm's variables. 120 s before the time is up, or when Slurm
preempts, the tasks get SIGTERM: `latents` saves and exits with 75, and the job puts itself back in the
queue under the same number. Project root, environment and --runs must lie on storage that all nodes see.
"""

import dataclasses
import os
import re
from collections.abc import Sequence
from pathlib import Path

from latents import main as cli
from latents.errors import UserError
from latents.machine.disk import on_disk
from launch import command, local

NOTICE_S = 120  # from SIGTERM to the end of the job's time: one step and one checkpoint
STRAGGLERS_S = 60  # what the other tasks get to end after the first one has ended

TIME = re.compile(r"(\d+-)?\d+(:\d+){0,2}")  # MM, MM:SS, HH:MM:SS, D-HH, D-HH:MM, D-HH:MM:SS


@dataclasses.dataclass(frozen=True, kw_only=True)
class Job:
  """What the script asks Slurm for. time: as Slurm writes it, e.g. 24:00:00; options: more of #SBATCH."""

  name: str
  time: str
  nodes: int = 1
  gpus_per_node: int = 0
  cpus_per_task: int | None = None
  partition: str | None = None
  account: str | None = None
  options: tuple[str, ...] = ()
  restarts: int = 100

  def __post_init__(self):
    if not TIME.fullmatch(self.time):
      raise UserError(f"--time {self.time}: Slurm's form is minutes, HH:MM:SS or D-HH:MM:SS")
    if not re.fullmatch(r"[\w.-]+", self.name):
      raise UserError(f"--name {self.name}: letters, digits, dots and dashes only")
    for word in (self.partition, self.account, *self.options):
      if word is not None and (not word or "\n" in word or word != word.strip()):
        raise UserError(f"'{word}' cannot stand in a line of #SBATCH")


def script(job: Job, words: Sequence[str], log: Path) -> str:
  """The text of the sbatch script that runs a command in the project root; its output goes to `log`."""
  asked = {
    "job-name": job.name,
    "nodes": job.nodes,
    "ntasks-per-node": 1,
    "gpus-per-node": job.gpus_per_node or None,
    "cpus-per-task": job.cpus_per_task,
    "time": job.time,
    "partition": job.partition,
    "account": job.account,
    "signal": f"TERM@{NOTICE_S}",
    "output": log,
    "open-mode": "append",
  }
  lines = [f"--{name}={value}" for name, value in asked.items() if value is not None]
  lines += ["--requeue", *(f"--{option.removeprefix('--')}" for option in job.options)]
  made = local.settings("gpu" if job.gpus_per_node else "cpu", os.environ)
  if job.nodes > 1:
    words = [*words, "--distributed"]
  return "\n".join(
    [
      "#!/bin/bash",
      *(f"#SBATCH {line}" for line in lines),
      f"cd {command.quoted([str(command.ROOT)])} || exit 1",
      *(f"export {command.quoted([], {name: value})}" for name, value in made.items()),
      "trap : TERM  # the tasks get it too and save; this shell waits for them",
      f"srun --wait={STRAGGLERS_S} {command.quoted(words)}",
      "code=$?",
      f'if [ "$code" -eq {command.PREEMPTED} ] && [ "${{SLURM_RESTART_COUNT:-0}}" -lt {job.restarts} ]; then',
      '  scontrol requeue "$SLURM_JOB_ID"',
      "fi",
      'exit "$code"',
      "",
    ]
  )


def submit(job: Job, words: Sequence[str], folder: Path, runner: command.Runner) -> int:
  """Write folder/NAME.sbatch, submit it, print the job's number. A dry run prints script and command."""
  path = folder.resolve() / f"{job.name}.sbatch"
  text = script(job, words, path.with_name(f"{job.name}-%j.log"))
  if runner.dry:
    print(f"# {path}\n{text}")
  else:
    try:
      path.parent.mkdir(parents=True, exist_ok=True)
      path.write_text(text)
    except OSError as error:
      raise UserError(f"cannot write {path}: {error.strerror}") from None
  number = runner.read(["sbatch", "--parsable", str(path)], dry="").split(";")[0]  # 'number;cluster'
  if not runner.dry:
    print(number)
  return 0


def _parser() -> cli.Parser:
  made = command.parser("slurm", "A batch job of one or many nodes.")
  made.add_argument("--name", default="latents", help="of the job, its script and its log")
  made.add_argument("--time", required=True, help="e.g. 24:00:00")
  made.add_argument("--nodes", type=command.count, default=1)
  made.add_argument("--gpus-per-node", type=command.limit, default=0, help="0: the CPU")
  made.add_argument("--cpus-per-task", type=command.count)
  made.add_argument("--partition")
  made.add_argument("--account")
  made.add_argument("--option", action="append", default=[], dest="options", help="for #SBATCH, e.g. --option qos=long")
  made.add_argument("--restarts", type=command.limit, default=100, help="how often the job may requeue itself")
  made.add_argument("--folder", type=on_disk, default=Path("runs/slurm"), help="for script and log")
  return made


def main(argv: Sequence[str] | None = None) -> int:
  """The command line; 0 when the job is in the queue."""

  def call() -> int:
    own, rest = command.parse(_parser(), argv)
    own.options = tuple(own.options)
    job = Job(**{field.name: getattr(own, field.name) for field in dataclasses.fields(Job)})
    return submit(job, [*command.LATENTS, *rest], own.folder, command.Runner(own.dry_run))

  return command.guarded(call)


if __name__ == "__main__":
  command.entry(main)
