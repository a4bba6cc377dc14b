"""A run's folder: what lies where, whose it is, and that one process at a time writes in it.

    runs/digits/
      experiment.json                     the declaration
      metrics.jsonl, tensorboard/         the log
      stage1-<address>/, stage2-<address>/
        checkpoints/                      Orbax, for resuming
        weights.safetensors artefact.json when the stage is done: the weights to use, and facts
      samples.png samples.npz reconstructions.png scores.json report.html

A folder is complete in itself: a stage 1 that another run beside it has finished is copied in.
"""

import contextlib
import fcntl
import os
import shutil
import socket
from collections.abc import Iterator
from pathlib import Path

from latents import artefact, hosts
from latents.disk import disk_errors
from latents.errors import UserError
from latents.experiment import Experiment, addresses, differences, digest, dumps, loads, to_json
from latents.train import log

DECLARATION, LOCK, SCORES, DATA, REPORT = "experiment.json", ".lock", "scores.json", "data.json", "report.html"


class Folder:
  """The folder of one run; `experiment` is what it declares."""

  def __init__(self, path: Path, experiment: Experiment):
    self.path, self.experiment = path, experiment

  def stage(self, number: int) -> Path:
    """The folder of a stage, named by the hash of its declaration."""
    return self.path / f"stage{number}-{addresses(self.experiment)[number - 1]}"

  def artefact(self, number: int) -> artefact.Artefact | None:
    """The finished stage, or None."""
    return artefact.read(self.stage(number))

  @contextlib.contextmanager
  def claimed(self) -> Iterator[None]:
    """Inside, this run is the only one that writes here, by its first process; the system frees the claim
    however we end."""
    if not hosts.first():
      yield
      return
    with disk_errors(self.path):
      self.path.mkdir(parents=True, exist_ok=True)
      lock = os.open(self.path / LOCK, os.O_RDWR | os.O_CREAT, 0o644)
    try:
      try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
      except OSError:
        owner = os.pread(lock, 200, 0).decode(errors="replace").strip()
        raise UserError(
          f"{self.path} is in use by another run ({owner or 'an unknown process'}): it ends, or `kill` ends it; "
          f"{LOCK} itself is never in the way, the system frees it with its process"
        ) from None
      os.truncate(lock, 0)
      os.pwrite(lock, f"pid {os.getpid()} on {socket.gethostname()}".encode(), 0)
      yield
    finally:
      os.close(lock)

  def write_declaration(self) -> None:
    """Store the experiment, whole or not at all."""
    temporary = self.path / (DECLARATION + ".tmp")
    with disk_errors(self.path):
      temporary.write_text(dumps(self.experiment))
      os.replace(temporary, self.path / DECLARATION)

  def declared(self) -> bool:
    """The stored declaration is this one to the last field, also those that do not make another run."""
    path = self.path / DECLARATION
    return path.is_file() and path.read_text(errors="replace") == dumps(self.experiment)

  def complete(self) -> bool:
    """Both stages are finished, and scored and reported under this declaration to the last field."""
    numbers = (1, 2) if self.experiment.stage2 else (1,)
    files = [self.stage(n) / artefact.FACTS for n in numbers] + [self.path / SCORES, self.path / REPORT]
    if not self.declared() or not all(file.is_file() for file in files):
      return False
    return artefact.read_json(self.path / SCORES).get("declaration") == self.declaration_digest()

  def declaration_digest(self) -> str:
    """Of the whole declaration, also the fields that do not make another run."""
    return digest(to_json(self.experiment))

  def check_data(self, number: int) -> str:
    """The identity of a stage's data. UserError if the stage was begun or finished on other data.

    The first process notes it in the stage's folder, so that a run that is resumed is compared too.
    """
    stage = self.experiment.stage1 if number == 1 else self.experiment.stage2
    assert stage is not None
    now, note = stage.data.identity(), self.stage(number) / DATA
    before = artefact.read_json(note) if note.exists() else now
    if before != now:
      raise UserError(
        f"the data of stage {number} are not those that {self.path} was begun with (files were added, removed "
        "or changed): bring them back, or choose another --name"
      )
    if hosts.first() and not note.exists():
      with disk_errors(self.path):
        note.parent.mkdir(parents=True, exist_ok=True)
        artefact.write_json(note, now)
    return now

  def borrow_stage1(self) -> Path | None:
    """Copy stage 1 from a run beside this one that has finished the same, on the same data; its folder, or None."""
    mine = self.stage(1)
    if (mine / artefact.FACTS).exists() or (mine / "checkpoints").exists():
      return None
    for other in sorted(self.path.parent.glob(f"*/{mine.name}/{artefact.FACTS}")):
      source = other.parent
      try:
        found = artefact.read(source)
        if found is None or found.facts.get("data") != self.experiment.stage1.data.identity():
          continue
      except UserError:  # a neighbour's damaged file is not our trouble: train
        continue
      lines = [line for line in log.read(source.parent / log.FILE) if line["stage"] == 1]
      log.rewrite(self.path / log.FILE, lines)
      with disk_errors(self.path):
        mine.mkdir(parents=True, exist_ok=True)
        for name in (artefact.WEIGHTS, artefact.FACTS):  # the facts last: they say that it is complete
          shutil.copyfile(source / name, mine / (name + ".tmp"))
          os.replace(mine / (name + ".tmp"), mine / name)
      return source
    return None


def open_folder(path: Path) -> Folder:
  """The folder of an existing run. UserError if it is none."""
  if not path.is_dir():
    raise UserError(f"{path} is not a folder")
  if not (path / DECLARATION).is_file():
    raise UserError(f"{path} is not a run's folder: it has no {DECLARATION}")
  try:
    text = (path / DECLARATION).read_text()
  except (OSError, UnicodeDecodeError) as error:
    raise UserError(f"{path / DECLARATION} cannot be read: {error}") from None
  return Folder(path, loads(text, str(path / DECLARATION)))


def identity(experiment: Experiment) -> str:
  """What makes two runs the same run: the addresses of both stages."""
  return digest(list(addresses(experiment)))


def choose_folder(runs: Path, experiment: Experiment, name: str | None) -> Folder:
  """Where a run of this experiment goes: `runs/NAME`, or `runs/NAME-<hash>` if another declaration of
  the same experiment is there already.

  UserError if `runs` is itself a run's folder, or if the place holds something else: another
  experiment, or files that are no run's; or, with an explicit `name`, another declaration.
  """
  if (runs / DECLARATION).exists():
    raise UserError(f"{runs} is a run's folder itself; --runs takes the folder that holds runs")
  if runs.exists() and not runs.is_dir():
    raise UserError(f"{runs} is not a folder")
  path = runs / _safe(name or experiment.name)
  if _free(path):
    return Folder(path, experiment)
  there = open_folder(path).experiment
  if identity(there) == identity(experiment):
    return Folder(path, experiment)
  changed = differences(to_json(there, address=True), to_json(experiment, address=True))
  if there.name != experiment.name:
    raise UserError(f"{path} holds a run of another experiment, '{there.name}': choose another --name or --runs")
  if name is not None:
    raise UserError(f"{path} holds another run of {there.name} ({'; '.join(changed[:3])}): choose another --name")
  path = runs / f"{path.name}-{identity(experiment)[:6]}"
  if not _free(path) and identity(open_folder(path).experiment) != identity(experiment):
    raise UserError(f"{path} holds another experiment: choose another --name or --runs")
  return Folder(path, experiment)


def _free(path: Path) -> bool:
  """Nothing is there but what a run leaves that was killed before it had declared itself."""
  return not path.exists() or all(p.name == LOCK or p.suffix == ".tmp" for p in path.iterdir())


def _safe(name: str) -> str:
  if not name or name.startswith((".", "-")) or any(c in name for c in "/\\\0\n"):
    raise UserError(f"'{name}' cannot be the name of a run: one folder's name, please")
  return name
