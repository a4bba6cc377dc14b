"""A sweep: the runs of an ablation, each a process of its own, and the table and verdicts that they give.

    runs/NAME/
      <variant>-s<seed>/       a run as any other, with <variant>-s<seed>.log beside it
      table.json verdict.json  what was measured, and what it says of the claims
      pictures.webp            the variants side by side, under the first seed

Each seed's whole table comes before the next seed's. A stage that several runs share is trained by the first of them,
while the others wait. A run that fails is named, and the others go on; the same command tries it again, and does
nothing where all is done.
"""

import contextlib
import dataclasses
import fcntl
import json
import os
import resource
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from latents.ablations import Ablation, Member, judge
from latents.ablations.ablation import at, numbers
from latents.ablations.base import read_table
from latents.declare import every_address, to_json
from latents.errors import UserError, nearest
from latents.machine import disk, endings
from latents.machine.disk import disk_errors, on_disk
from latents.report.ablation import strip
from latents.runs import history, run
from latents.store import artefact
from latents.store.choose import choose_folder
from latents.store.folder import LOCK, SCORES
from latents.train import log

TABLE, VERDICT, PICTURES = "table.json", "verdict.json", "pictures.webp"
TINY = 240.0  # seconds of one core that a run of a tiny sweep may take
POLL = 0.2  # seconds between looks at what runs
ROOT = Path(__file__).resolve().parent.parent.parent


@dataclasses.dataclass(frozen=True)
class Sweep:
  """An ablation of a file at a scale, in `runs/name`. document: the file's docstring, for the page. lpips: a file of
  weights, by which every run measures LPIPS too."""

  ablation: Ablation
  file: Path
  document: str
  scale: str
  runs: Path
  name: str
  lpips: str | None = None

  def __post_init__(self):
    on_disk(self.runs)
    if self.lpips:
      object.__setattr__(self, "ablation", self.ablation.measured(lpips=self.lpips))

  @property
  def folder(self) -> Path:
    """Of the whole sweep."""
    return self.runs / self.name

  def run(self, variant: str, seed: int) -> Path:
    """Bring one member to its end, in this process; its folder. UserError for a variant that is not there."""
    if variant not in self.ablation.variants:
      raise UserError(f"{self.file} has no variant '{variant}'{nearest(variant, self.ablation.variants)}")
    member = Member(variant, seed, self.ablation.seeded(self.ablation.variants[variant], seed))
    paper = self.document.partition("\n")[0]
    return run.run(member.experiment, self.folder, member.name, f"latents {' '.join(self.words(member))}", paper)

  def words(self, member: Member) -> list[str]:
    """The command line of one member."""
    place = ["--scale", self.scale, "--runs", str(self.runs), "--name", self.name]
    place += ["--lpips", self.lpips] if self.lpips else []
    return ["ablate", str(self.file), *place, "--only", member.variant, "--seed", str(member.seed)]

  def process(self, member: Member) -> list[str]:
    """What is started for a member; it ends with its standard input."""
    return [sys.executable, "-m", "latents.main", *self.words(member), "--attached"]

  def all(self, seeds: int, jobs: int = 1) -> dict[str, Any]:
    """Bring every member to its end, `jobs` at a time; {"table", "verdict"}, which are also written.

    UserError naming the members that failed, once all others are done.
    """
    members = self.ablation.members(seeds)
    with self._claimed():
      todo = [m for m in members if not choose_folder(self.folder, m.experiment, m.name).complete()]
      _say(f"{self.name}: {len(members)} runs, {len(members) - len(todo)} of them done")
      failed = _Pool(self, jobs).bring(todo)
      self._write(seeds, [m for m in members if m.name not in failed])
    if failed:
      told = "; ".join(f"{name} ({why})" for name, why in sorted(failed.items()))
      raise UserError(f"{len(failed)} of {len(members)} runs failed: {told}; the same command tries them again")
    return {n: artefact.read_json(self.folder / f) for n, f in (("table", TABLE), ("verdict", VERDICT))}

  @contextlib.contextmanager
  def _claimed(self) -> Iterator[None]:
    """Inside, no other sweep starts runs here. The claim is handed down to them: after a kill the next sweep waits
    until the last of them has ended."""
    with disk_errors(self.folder):
      self.folder.mkdir(parents=True, exist_ok=True)
      lock = os.open(self.folder / LOCK, os.O_RDWR | os.O_CREAT, 0o644)
    os.set_inheritable(lock, True)
    try:
      if not disk.lock(lock, str(self.folder)):
        _say(f"another sweep works in {self.folder}, or its last run is saving: waiting for its end")
        fcntl.flock(lock, fcntl.LOCK_EX)
      yield
    finally:
      os.close(lock)

  def _write(self, seeds: int, members: list[Member]) -> None:
    if not members:
      return
    table = self._table(seeds, members)
    parsed, claims = read_table(table)
    pictures = strip({m.variant: self.folder / m.name for m in members if m.seed == 0})
    with disk_errors(self.folder):
      _put(self.folder / TABLE, json.dumps(table, indent=1).encode() + b"\n")
      _put(self.folder / VERDICT, json.dumps(judge(claims, parsed), indent=1).encode() + b"\n")
      if pictures:
        _put(self.folder / PICTURES, pictures)

  def _table(self, seeds: int, members: list[Member]) -> dict[str, Any]:
    """The JSON of table.json. UserError for a column that no run has measured."""
    scores = {(m.variant, m.seed): artefact.read_json(self.folder / m.name / SCORES) for m in members}

    def rows(path: str) -> dict[str, list[float | None]]:
      found = {k: at(s, path) for k, s in scores.items()}
      return {v: [found.get((v, s)) for s in range(seeds)] for v in self.ablation.variants}

    columns = {path: rows(path) for path in self.ablation.columns}
    for path, found in columns.items():
      if all(v is None for row in found.values() for v in row):
        known = [p for p, _ in numbers(next(iter(scores.values())))]
        raise UserError(f"{SCORES} has no number at the column {path}{nearest(path, known)}")
    ran = " ".join(["latents ablate", str(self.file), "--scale", self.scale, "--seeds", str(seeds)])
    ran += " --lpips WEIGHTS" if self.lpips else ""
    return {
      "name": self.name,
      "document": self.document,
      "command": ran,
      "scale": self.scale,
      "seeds_of": self.ablation.seeds_of,
      "seeds": list(range(seeds)),
      "variants": self.ablation.described(),
      "values": columns,
      **({"curves": self._curves(seeds)} if self.ablation.curves else {}),
      "samples": any(made.stage2 is not None for made in self.ablation.variants.values()),
      "claims": [to_json(c) for c in self.ablation.claims],
      "cost": {
        "seconds": {v: _sums([row1, row2]) for v, row1, row2 in _both(rows("time.stage1_s"), rows("time.stage2_s"))},
        "parameters": {v: _sums([a, b]) for v, a, b in _both(rows("parameters.autoencoder"), rows("parameters.prior"))},
      },
      "environment": next(iter(scores.values()))["environment"],
    }

  def _curves(self, seeds: int) -> dict[str, dict[str, list[history.Curve]]]:
    """name -> variant -> one curve a seed. UserError for a name that no run has logged."""
    made = self.ablation.variants.items()
    found = {v: [history.read(self.folder / Member(v, s, e).name / log.FILE) for s in range(seeds)] for v, e in made}
    known = {name for each in found.values() for curves in each for name in curves}
    if lost := [name for name in self.ablation.curves if name not in known]:
      raise UserError(f"no run has logged {lost[0]}{nearest(lost[0], known)}")
    return {name: {v: [c.get(name, []) for c in each] for v, each in found.items()} for name in self.ablation.curves}


class _Pool:
  """Members as processes, at most `jobs` at a time, none of them beside one that trains a stage of its own."""

  def __init__(self, sweep: Sweep, jobs: int):
    self.sweep, self.jobs = sweep, jobs
    self.running: dict[str, tuple[Member, subprocess.Popen, float]] = {}
    self.failed: dict[str, str] = {}

  def bring(self, todo: list[Member]) -> dict[str, str]:
    """Run them all; name -> why it failed."""
    waiting = list(todo)
    try:
      with endings.Request("its runs save and end") as stop:
        while waiting or self.running:
          for member in list(waiting):
            if len(self.running) < self.jobs and not self._meets(member):
              waiting.remove(member)
              self._start(member)
          self._ended()
          time.sleep(POLL)
          stop.check()
    finally:
      for _, process, _ in self.running.values():
        _let_go(process)  # it saves and ends
      for _, process, _ in self.running.values():
        process.wait()
    return self.failed

  def _meets(self, member: Member) -> bool:
    """Whether a stage of this member is in work by another, and not finished there."""
    mine = set(every_address(member.experiment))
    busy = {a for other, _, _ in self.running.values() for a in every_address(other.experiment)}
    return any(not list(self.sweep.folder.glob(f"*/stage?-{a}/{artefact.FACTS}")) for a in mine & busy)

  def _start(self, member: Member) -> None:
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(filter(None, [str(ROOT), os.environ.get("PYTHONPATH")]))}
    _say(f"{member.name} begins")
    with disk_errors(self.sweep.folder), self._log(member).open("w") as told:
      process = subprocess.Popen(
        self.sweep.process(member),
        stdin=subprocess.PIPE, stdout=told, stderr=subprocess.STDOUT, env=environment, close_fds=False,
      )  # fmt: skip
    self.running[member.name] = member, process, time.monotonic()

  def _log(self, member: Member) -> Path:
    return self.sweep.folder / f"{member.name}.log"

  def _ended(self) -> None:
    for name, (member, process, since) in list(self.running.items()):
      before = _worked()
      if (code := process.poll()) is None:
        continue
      work = _worked() - before  # its own: the system adds it when it is asked for its exit code
      del self.running[name]
      _let_go(process)
      took = time.monotonic() - since
      if code:
        lines = [line for line in self._log(member).read_text(errors="replace").splitlines() if line.strip()]
        self.failed[name] = f"exit code {code}: {(lines or ['it said nothing'])[-1].removeprefix('latents: ')[:200]}"
        _say(f"{name} failed after {took:.0f} s: {self.failed[name]}")
        continue
      late = f"; a run of a tiny sweep is to take at most {TINY:.0f} s of one core" * (work > TINY)
      _say(f"{name} done in {took:.0f} s, {work:.0f} s of one core{late if self.sweep.scale == 'tiny' else ''}")


def _let_go(process: subprocess.Popen) -> None:
  """Close the pipe by which a child follows this process."""
  assert process.stdin is not None
  process.stdin.close()


def _worked() -> float:
  """Seconds that the processors worked for children that have ended."""
  used = resource.getrusage(resource.RUSAGE_CHILDREN)
  return used.ru_utime + used.ru_stime


Rows = dict[str, list[float | None]]


def _both(a: Rows, b: Rows) -> list[tuple[str, list[float | None], list[float | None]]]:
  return [(name, a[name], b[name]) for name in a]


def _sums(rows: list[list[float | None]]) -> list[float | None]:
  """Sums by seed of what is there; None where nothing is."""
  found = [[v for v in column if v is not None] for column in zip(*rows, strict=True)]
  return [sum(column) if column else None for column in found]


def _put(path: Path, content: bytes) -> None:
  """A file, whole or not at all; untouched where it has this content."""
  if path.is_file() and path.read_bytes() == content:
    return
  temporary = path.with_name(path.name + ".tmp")
  temporary.write_bytes(content)
  os.replace(temporary, path)


def _say(text: str) -> None:
  print(f"latents: {text}", file=sys.stderr, flush=True)
