"""Faults drawn at random over one training: python -m tests.torture.faults --faults 50 --seed 0

The training (a GAN, an EMA codebook, a prior on cached codes) is started again and again on processes of
this machine, and each time something is done to it: processes are killed, in a step, in a save or while
it scores; asked to stop; given a disk that is too small; a file of the newest checkpoint is cut or gets a
bit turned; the number of processes or devices is another one. At the end its weights are compared with
those of the training that was left alone: the same bytes if the topology stayed, else equal to tolerance.
"""

import argparse
import dataclasses
import json
import os
import random
import re
import signal
import subprocess
import sys
import tempfile
import threading
import time
from pathlib import Path

import numpy as np
from safetensors.numpy import load_file

from launch.multiprocess import free_port

ROOT = Path(__file__).parents[2]
STEPS_A_FAULT = 3  # of each stage; a fault takes back up to 5 steps and lets 1 to 6 pass
EXPERIMENT = '''
"""For tests. latents run"""
import dataclasses
from tests import micro

def experiment(scale: str = "tiny"):
  made = micro.experiment(codes=True)
  one = dataclasses.replace(made.stage1, steps=STEPS, save_every=5)
  two = dataclasses.replace(made.stage2, steps=STEPS, save_every=5, cache=True)
  return dataclasses.replace(made, stage1=one, stage2=two)
'''
KINDS = ("kill all", "kill one", "kill in a save", "terminate", "disk full", "cut a file", "turn a bit")
END_S = 75.0  # what is left after a process was killed ends within this: silence, its notice, and slow cores
LAST_S = 900.0
FILE = "torture.py"
FAST = "--xla_backend_optimization_level=0 --xla_llvm_disable_expensive_passes=true"


@dataclasses.dataclass(frozen=True)
class Topology:
  """Processes, and devices in each."""

  processes: int
  devices: int


class Attempt:
  """One start of the training."""

  def __init__(self, file: Path, topology: Topology, flags: tuple[str, ...] = (), limit: int | None = None):
    port, self.lines, self.processes = free_port(), [], []
    command = [sys.executable, "-m", "latents.main", "run", str(file), "--runs", str(file.parent), *flags]
    command += ["--distributed"] if topology.processes > 1 else []
    shell = f'ulimit -f {limit}; exec "$@"' if limit else 'exec "$@"'
    for number in range(topology.processes):
      env = {**os.environ, "PYTHONPATH": str(ROOT), "JAX_PLATFORMS": "cpu"}
      env["XLA_FLAGS"] = f"{FAST} --xla_force_host_platform_device_count={topology.devices}"
      if topology.processes > 1:
        env |= {"LATENTS_COORDINATOR": f"127.0.0.1:{port}", "LATENTS_PROCESSES": str(topology.processes)}
        env |= {"LATENTS_PROCESS": str(number)}
      pipes = {"stdout": subprocess.DEVNULL, "stderr": subprocess.PIPE, "text": True, "errors": "replace"}
      made = subprocess.Popen(["bash", "-c", shell, "bash", *command], cwd=ROOT, env=env, **pipes)
      self.processes.append(made)
      threading.Thread(target=lambda p=made: self.lines.extend(p.stderr), daemon=True).start()

  def running(self) -> bool:
    return any(process.poll() is None for process in self.processes)

  def send(self, number: int, index: int | None = None) -> None:
    for process in self.processes if index is None else [self.processes[index]]:
      if process.poll() is None:
        process.send_signal(number)

  def end(self, seconds: float) -> list[int]:
    deadline = time.monotonic() + seconds
    for process in self.processes:
      try:
        process.wait(max(0.1, deadline - time.monotonic()))
      except subprocess.TimeoutExpired:
        self.send(signal.SIGKILL)
        raise AssertionError(f"still there after {seconds:.0f} s:\n{self.told()}") from None
    time.sleep(0.1)  # for the readers
    return [process.returncode for process in self.processes]

  def told(self) -> str:
    return "\n".join(line.strip()[:300] for line in list(self.lines) if "latents:" in line)

  def resumed(self) -> dict[int, int]:
    """Stage -> the step after which it went on."""
    return {int(a): int(b) for a, b in re.findall(r"stage (\d) goes on after step (\d+)", self.told())}


class Torture:
  """A training in `folder`, and what has been done to it."""

  def __init__(self, folder: Path, seed: int, faults: int):
    self.folder, self.run, self.rng = folder, folder / "micro", random.Random(seed)
    folder.mkdir(parents=True, exist_ok=True)
    (folder / FILE).write_text(EXPERIMENT.replace("STEPS", str(max(30, STEPS_A_FAULT * faults))))
    self.counts: dict[str, int] = {}
    self.damaged: dict[int, int] = {}  # stage -> the step of its spoilt checkpoint, until a start has seen it
    self.passed_over = 0

  def position(self) -> tuple[int, int]:
    path = self.run / "metrics.jsonl"
    lines = [li for li in path.read_text().splitlines() if li.endswith("}")] if path.exists() else []
    last = json.loads(lines[-1]) if lines else {"stage": 1, "step": 0}
    return last["stage"], last["step"]

  def sealed(self) -> dict[int, list[int]]:
    """Stage -> the steps of its checkpoints that are agreed on: in their place and sealed."""
    found: dict[int, list[int]] = {}
    for path in self.run.glob("stage*/seals/*.json"):
      if (path.parents[1] / "checkpoints" / path.stem).exists():
        found.setdefault(int(path.parents[1].name[5]), []).append(int(path.stem))
    return {stage: sorted(steps) for stage, steps in found.items()}

  def strike(self, kind: str, topology: Topology) -> None:
    """Start, do one thing, wait for the end, and check what must hold."""
    before = self.sealed()
    last = max(before, default=0)
    if kind in KINDS[-2:] and len(before.get(last, ())) > 1 and last not in self.damaged:  # one to go back to is there
      self.damage(kind, before)
    limit = self.rng.choice([8, 40, 90]) if kind == "disk full" else None
    attempt = Attempt(self.folder / FILE, topology, limit=limit)
    self.wait(attempt, kind)
    begin, alive = time.monotonic(), attempt.running()
    if kind == "kill one":
      attempt.send(signal.SIGKILL, self.rng.randrange(topology.processes))
    elif kind == "terminate":
      attempt.send(signal.SIGTERM, self.rng.randrange(topology.processes))
    elif kind != "disk full":
      attempt.send(signal.SIGKILL)
    codes = attempt.end(LAST_S if kind in ("disk full", "terminate") else END_S)
    self.check(kind, attempt, codes, before, alive)
    self.counts[kind] = self.counts.get(kind, 0) + 1
    told, shape = attempt.told().replace("\n", " | "), f"{topology.processes}x{topology.devices}"
    number, took = sum(self.counts.values()), f"{time.monotonic() - begin:5.1f} s later"
    print(f"{number:3} {kind:15} {shape} ended {took} with {codes} at {self.position()}; {told[-150:]}", flush=True)

  def wait(self, attempt: Attempt, kind: str) -> None:
    """Until the moment of the fault: some steps on, or in a save, or anywhere from the start on."""
    saves = "stage*/checkpoints/*tmp*"
    (stage, step), left_over = self.position(), set(self.run.glob(saves))
    goal = (stage, step + self.rng.randint(1, 6))
    early = kind != "kill in a save" and self.rng.random() < 0.1
    pause = self.rng.uniform(0, 8) if early else self.rng.uniform(0, 0.3)
    deadline = time.monotonic() + LAST_S
    while attempt.running() and time.monotonic() < deadline and kind != "disk full":
      if kind == "kill in a save":
        if set(self.run.glob(saves)) - left_over:
          return
      elif early or self.position() >= goal or (self.run / "scores.json").exists():
        time.sleep(pause)
        return
      time.sleep(0.002 if kind == "kill in a save" else 0.05)

  def damage(self, kind: str, sealed: dict[int, list[int]]) -> None:
    """Spoil a file of the newest checkpoint."""
    stage = max(sealed)
    step = sealed[stage][-1]
    (checkpoint,) = self.run.glob(f"stage{stage}-*/checkpoints/{step}")
    path = self.rng.choice([p for p in sorted(checkpoint.rglob("*")) if p.is_file() and p.stat().st_size > 8])
    data = bytearray(path.read_bytes())
    if kind == "cut a file":
      data = data[: self.rng.randrange(len(data))]
    else:
      data[self.rng.randrange(len(data))] ^= 1 << self.rng.randrange(8)
    path.write_bytes(bytes(data))
    self.damaged[stage] = step

  def check(self, kind: str, attempt: Attempt, codes: list[int], before: dict, alive: bool) -> None:
    """No traceback, no step lost beyond the last sound checkpoint, the right exit codes."""
    told = attempt.told()
    text = "".join(list(attempt.lines))
    assert "Traceback" not in text, text[-3000:]
    for stage, step in attempt.resumed().items():
      spoilt = self.damaged.pop(stage, None)
      sound = [s for s in before.get(stage, []) if s != spoilt]
      assert step >= max(sound, default=0), f"stage {stage} went on after {step}, sound were {sound}\n{told}"
      if spoilt is not None:
        assert step != spoilt and "passed over" in told, told
        self.passed_over += 1
    if "was passed over" in told:
      self.damaged.clear()
    if kind == "terminate" and alive:
      assert set(codes) <= {75, 0, -signal.SIGTERM}, (codes, told)  # -15: before the command has begun
    if kind == "kill one" and len(codes) > 1 and alive and set(codes) != {0}:
      others = [code for code in codes if code != -signal.SIGKILL]
      assert all(code in (76, -signal.SIGABRT, 0) for code in others), (codes, told)
    if kind == "disk full":
      assert set(codes) <= {2, 0}, (codes, told)

  def finish(self, topology: Topology) -> float:
    """To the end; seconds."""
    begin = time.monotonic()
    attempt = Attempt(self.folder / FILE, topology)
    codes = attempt.end(LAST_S)
    assert set(codes) == {0}, (codes, "".join(attempt.lines)[-3000:])
    return time.monotonic() - begin


def weights(run: Path) -> dict[str, np.ndarray]:
  """Of both stages of a run."""
  return {
    f"{path.parent.name}/{name}": array
    for path in sorted(run.glob("stage*/weights.safetensors"))
    for name, array in load_file(path).items()
  }


def compare(a: dict[str, np.ndarray], b: dict[str, np.ndarray], bitwise: bool) -> float:
  """The largest difference relative to an array's largest number; with `bitwise` it must be 0."""
  assert a.keys() == b.keys() and len(a) > 20
  worst = max(float(np.abs(a[k] - b[k]).max() / (np.abs(a[k]).max() + 1e-12)) for k in a)
  if bitwise:
    assert all(a[k].tobytes() == b[k].tobytes() for k in a), worst
  return worst


def series(folder: Path, seed: int, faults: int, topologies: list[Topology]) -> Torture:
  """A training long enough for `faults` faults, which goes round the topologies; then its end."""
  made = Torture(folder, seed, faults)
  while sum(made.counts.values()) < faults and not (made.run / "scores.json").exists():
    kind = made.rng.choice(KINDS)
    topology = made.rng.choice(topologies)
    if (kind == "kill one" and topology.processes == 1) or (kind in KINDS[-2:] and not made.sealed()):
      continue
    made.strike(kind, topology)
  made.finish(topologies[0])
  return made


def main(argv: list[str] | None = None) -> None:
  """The whole torture; prints each fault, the counts, and how the weights compare."""
  words = argparse.ArgumentParser(description=__doc__)
  words.add_argument("--faults", type=int, default=50)
  words.add_argument("--seed", type=int, default=0)
  words.add_argument("--folder", type=Path)
  words.add_argument("--series", nargs="+", choices=("1x1", "2x1", "changing"), help="default: all, with their shares")
  given = words.parse_args(argv)
  one, two, wide = Topology(1, 1), Topology(2, 1), Topology(1, 2)
  plan = {"1x1": (0.5, [one]), "2x1": (0.26, [two]), "changing": (0.24, [one, wide, two])}
  with tempfile.TemporaryDirectory() as temporary:
    folder = given.folder or Path(temporary)
    total, passed_over = {}, 0
    for name in given.series or plan:
      share, topologies = plan[name]
      faults = round(share * given.faults)
      alone = Torture(folder / f"alone-{name}", 0, faults)
      print(f"undisturbed {name}: {alone.finish(topologies[0]):.0f} s", flush=True)
      made = series(folder / name, given.seed, faults, topologies)
      bitwise = len(topologies) == 1
      worst = compare(weights(alone.run), weights(made.run), bitwise)
      assert worst < 0.05
      count, how = sum(made.counts.values()), "bitwise equal" if bitwise else f"within {worst:.1e}"
      print(f"{name}: {count} faults (of {faults}) over one training, weights {how}", flush=True)
      passed_over += made.passed_over
      total = {k: total.get(k, 0) + made.counts.get(k, 0) for k in {**total, **made.counts}}
    print(f"{sum(total.values())} faults: {total}; damaged checkpoints passed over: {passed_over}; "
          "trainings lost: 0, hangs: 0")  # fmt: skip


if __name__ == "__main__":
  main()
