"""A run's folder: what lies where, whose it is, and that one process at a time writes in it.

    runs/digits/
      experiment.json                     the declaration
      metrics.jsonl, tensorboard/         the log
      stage1-<address>/, stage2-<address>/
        checkpoints/                      Orbax, for resuming; gone when the stage is done
        weights.safetensors artefact.json when the stage is done: the weights to use, and facts
      samples.png samples.npz reconstructions.png neighbours.png scores.json report.html

A folder is complete in itself: stages that other runs have finished are linked in (`stages`).
"""

import contextlib
import dataclasses
import functools
import os
import shutil
import socket
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Literal

from latents.declare import (
  Experiment,
  Stage1,
  Stage2,
  addresses,
  digest,
  dumps,
  every_address,
  former_addresses,
  loads,
  to_json,
  with_data_at,
)
from latents.declare.stored import Form
from latents.errors import UserError
from latents.machine import disk, hosts
from latents.machine.disk import disk_errors
from latents.store import artefact, stages
from latents.train import log

DECLARATION, LOCK, SCORES, DATA, REPORT = "experiment.json", ".lock", "scores.json", "data.json", "report.html"


class Folder:
  """The folder of one run; `experiment` is what it declares. title: see `of`."""

  def __init__(self, path: Path, experiment: Experiment, title: str = ""):
    self.path, self.experiment, self.title = path, experiment, title

  def stage(self, number: int) -> Path:
    """The folder of a stage, named by its address; by a former one where that is what is there."""
    mine = self.path / f"stage{number}-{self._addresses[number - 1]}"
    if not mine.exists():
      for address in self._former(number):
        if (there := self.path / f"stage{number}-{address}").exists():
          return there
    return mine

  @functools.cached_property
  def _addresses(self) -> tuple[str, str | None]:
    return addresses(self.experiment)

  @functools.cached_property
  def _before(self) -> list[tuple[str, str | None]]:
    """The addresses that an older version gave to this declaration, and to the one stored here if it is the same."""
    known = [former_addresses(self.experiment)]
    with contextlib.suppress(UserError):
      stored = open_folder(self.path).experiment
      if addresses(stored) == self._addresses:
        known.append(former_addresses(stored))
    return known

  def _former(self, number: int) -> Iterator[str]:
    for known in self._before:
      if (address := known[number - 1]) and address != self._addresses[number - 1]:
        yield address

  def of(self, stage: Stage1 | Stage2, title: str = "") -> tuple["Folder", Literal[1, 2]]:
    """This folder as that of a stage which one of this experiment needs: (folder, the stage's number in it).

    title: its place in the declaration, for people.
    """
    if isinstance(stage, Stage2):
      return Folder(self.path, dataclasses.replace(self.experiment, stage2=stage), title), 2
    return Folder(self.path, dataclasses.replace(self.experiment, stage1=stage, stage2=None), title), 1

  def called(self, number: int) -> str:
    """A stage's name for people: its place in the declaration where another one needs it."""
    return self.title or f"stage {number}"

  def finished(self, number: int) -> bool:
    """Whether a stage has its artefact; reads no weights."""
    return (self.stage(number) / artefact.FACTS).is_file()

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
      if not disk.lock(lock, str(self.path)):
        owner = os.pread(lock, 200, 0).decode(errors="replace").strip()
        raise UserError(
          f"{self.path} is in use by another run ({owner or 'an unknown process'}): it ends, or `kill` ends it; "
          f"{LOCK} itself is never in the way, the system frees it with its process"
        )
      os.truncate(lock, 0)
      os.pwrite(lock, f"pid {os.getpid()} on {socket.gethostname()}".encode(), 0)
      yield
    finally:
      os.close(lock)

  def check_version(self) -> None:
    """UserError where a stage is finished here that nothing in this declaration is: another version of latents declared
    it, and to go on would be to train it again beside what it has made."""
    forms: tuple[Form, ...] = ("address", "former")
    known = {address for form in forms for address in every_address(self.experiment, form)}
    known |= {address for number in (1, 2) for address in self._former(number)}
    for place in sorted(self.path.glob(f"stage[12]-*/{artefact.FACTS}")):
      if place.parent.name.split("-")[1] not in known:
        raise UserError(
          f"{place.parent} was finished by another version of latents, whose declaration of it this version does not "
          "have: use that version (git), or train anew under another --name"
        )

  def write_declaration(self) -> None:
    """Store the experiment, whole or not at all; stages with former addresses get those of today first, since the
    stored declaration may be what they were known by."""
    temporary = self.path / (DECLARATION + ".tmp")
    with disk_errors(self.path):
      for number in (1, 2) if self.experiment.stage2 else (1,):
        if (there := self.stage(number)).exists():
          os.rename(there, self.path / f"stage{number}-{self._addresses[number - 1]}")
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
    return self.scores().get("declaration") == self.declaration_digest()

  def scores(self) -> dict[str, Any]:
    """The score card; {} where there is none, or one that is damaged and will be written anew."""
    try:
      found = artefact.read_json(self.path / SCORES) if (self.path / SCORES).is_file() else {}
    except UserError:
      return {}
    return found if isinstance(found, dict) else {}

  def declaration_digest(self) -> str:
    """Of the whole declaration, also the fields that do not make another run."""
    return digest(to_json(self.experiment))

  def check_data(self, number: int) -> str:
    """The identity of a stage's data. UserError if the stage was begun or finished on other data.

    The first process notes it in the stage's folder, so that a run that is resumed is compared too.
    """
    stage, place = self.experiment.stage(number), self.stage(number)
    now, note = stage.data.identity(), place / DATA
    before = now
    if note.exists():
      before = artefact.read_json(note)
    elif self.finished(number):
      before = artefact.facts_of(place).get("data", now)
    if before != now:
      raise UserError(
        f"the data of {self.called(number)} are not those that {self.path} was begun with (files were added, removed "
        "or changed): bring them back, or choose another --name"
      )
    if hosts.first() and not note.exists():
      with disk_errors(self.path):
        note.parent.mkdir(parents=True, exist_ok=True)
        artefact.write_json(note, now)
    return now

  def keep(self, number: int, runs: Path | None = None) -> None:
    """Put a stage that is finished where other runs find it: those beside this one, or those in `runs`."""
    place = self.stage(number)
    stages.put(runs or self.path.parent, place, artefact.facts_of(place), self._lines(self.log(number).parent, number))

  def log(self, number: int) -> Path:
    """The log of a stage: the run's, or one of its own where another stage needs it."""
    return (self.stage(number) if self.title else self.path) / log.FILE

  def _lines(self, folder: Path, number: int) -> list[dict[str, Any]]:
    return [line for line in log.read(folder / log.FILE) if line["stage"] == number]

  def borrow(self, number: int) -> Path | None:
    """Take a stage that was finished before, on the same data and latents: from the store, or from a run beside this
    one. The folder where it was, or None."""
    mine, source = self.stage(number), self.lender(number)
    if source is not None:
      lines = self._lines(source if (source / log.FILE).exists() else source.parent, number)
      if self.title:
        mine.mkdir(parents=True, exist_ok=True)
        log.rewrite(mine / log.FILE, lines)
      else:
        before = [line for line in log.read(self.path / log.FILE) if line["stage"] < number]
        log.rewrite(self.path / log.FILE, before + lines)
      stages.copy(source, mine)
    return source

  def lender(self, number: int) -> Path | None:
    """The folder from which `borrow` would take a stage; None where it is here, begun here, or nowhere."""
    mine = self.stage(number)
    if self.finished(number) or (mine / "checkpoints").exists():
      return None
    wanted = [{"data": self.experiment.stage(number).data.identity()}]
    if number == 2:
      one = self.artefact(1)
      assert one is not None
      wanted = [{**wanted[0], "stage1": made} for made in (one.latents, one.fingerprint)]  # the second: as of 61e35a8
    kept = stages.place(self.path.parent, {"address": mine.name.split("-")[1], **wanted[0]})
    names = [mine.name, *(f"stage{number}-{address}" for address in self._former(number))]
    beside = (p.parent for name in names for p in sorted(self.path.parent.glob(f"*/{name}/{artefact.FACTS}")))
    for source in (kept, *beside):
      if any(stages.found(source, facts) for facts in wanted):
        return source
    return None

  def drop_checkpoints(self, number: int) -> None:
    """Delete the checkpoints of a finished stage: eight times its weights, and nothing reads them any more."""
    for name in ("checkpoints", "seals"):
      shutil.rmtree(self.stage(number) / name, ignore_errors=True)


def open_folder(path: Path, data: str | None = None) -> Folder:
  """The folder of an existing run, with its data at another place if one is given. UserError if it is none."""
  if not path.is_dir():
    raise UserError(f"{path} is not a folder")
  if not (path / DECLARATION).is_file():
    raise UserError(f"{path} is not a run's folder: it has no {DECLARATION}")
  try:
    text = (path / DECLARATION).read_text()
  except (OSError, UnicodeDecodeError) as error:
    raise UserError(f"{path / DECLARATION} cannot be read: {error}") from None
  experiment = loads(text, str(path / DECLARATION))
  return Folder(path, experiment if data is None else with_data_at(experiment, data))
