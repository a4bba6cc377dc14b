"""The one training loop: restore, step, log, save. It knows nothing of models or stages."""

import dataclasses
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import jax
import numpy as np

from latents.errors import UserError
from latents.machine import endings, environment, hosts, progress
from latents.train.build_step import Program
from latents.train.checkpoint import Checkpoints
from latents.train.log import Log
from latents.train.sharding import place_batch
from latents.train.state import State
from latents.types import Batch


@dataclasses.dataclass(frozen=True, kw_only=True)
class Plan:
  """What the loop needs besides the program: lengths, rhythm, and the stage's number in the log and name for people;
  headline: the terms that the bar shows behind the total, () = all. rate: updates so far -> learning rate, for the
  log. held_out: state -> scalars by name, logged every `held_out_every` steps and after the last one; None = never.
  keep: checkpoints that stay, None = all."""

  stage: int
  name: str
  steps: int
  batch: int
  log_every: int
  save_every: int
  patience: int
  headline: tuple[str, ...] = ()
  rate: Callable[[int], Any] | None = None
  held_out: Callable[[State], dict[str, Any]] | None = None
  held_out_every: int = 0
  keep: int | None = 2

  def due(self, step: int) -> bool:
    """Whether the held-out losses are measured after this step."""
    return self.held_out is not None and (step % self.held_out_every == 0 or step == self.steps)


def train(
  program: Program,
  plan: Plan,
  frozen: Any,
  batches: Callable[[int], Iterator[Batch]],
  folder: Path,
  run: Path | None,
  start: Any = None,
) -> State:
  """Run a stage to its last step and return its state.

  batches(start) iterates over this process's rows of the global batches from step `start` on. folder:
  where the checkpoints lie. run: the folder for the log; None on processes that do not write. start: variables that
  step 0 begins with in place of random ones (`step.init`).
  Resumes from the newest readable checkpoint. UserError after `patience` skipped updates in a row;
  the last good checkpoint stays. `endings.Stopped` after ^C, SIGTERM or SIGHUP, with the state saved.
  """
  checkpoints = Checkpoints(folder / "checkpoints", plan.keep)
  try:
    state = checkpoints.restore(program.state)
    for note in checkpoints.notes if hosts.first() else ():
      print(f"latents: {note}", file=sys.stderr)
    resumed = state is not None
    state = first_state(program, start) if state is None else state
    step = int(state.step)
    if resumed and hosts.first():
      print(f"latents: {plan.name} goes on after step {step}", file=sys.stderr, flush=True)
    checkpoints.discard_after(step)
    log = Log(run, plan.stage, step)
    data = batches(step)
    try:
      return _loop(program, plan, state, frozen, data, checkpoints, log)
    finally:
      log.close()
      getattr(data, "close", lambda: None)()
  finally:
    checkpoints.close()


def first_state(program: Program, start: Any) -> State:
  """The state at step 0."""
  return program.init(start) if start else program.init()


def _loop(
  program: Program, plan: Plan, state: State, frozen: Any, data: Iterator, checkpoints: Checkpoints, log: Log
) -> State:
  start = int(state.step)
  watch, stopping = _Watch(start), False
  bar = progress.bar(plan.name, plan.steps, "step", start)
  several = hosts.processes() > 1
  with endings.Request("the state is saved after this step", relay=several) as stop, bar:
    for step in range(start + 1, plan.steps + 1):
      begin = time.perf_counter()
      batch = next(data)
      watch.waited += time.perf_counter() - begin
      index = batch["index"]
      state, scalars = program.step(state, frozen, place_batch(batch, plan.batch, program.mesh))
      checkpoints.check()
      bar.update()
      if step % plan.log_every == 0 or step in (start + 1, plan.steps) or plan.due(step):
        values = {f"train/{k}": float(v) for k, v in jax.device_get(scalars).items()}
        values |= {"train/lr": float(plan.rate(step - 1))} if plan.rate else {}
        values |= watch.read(step) | {"train/skipped": int(state.extra["skipped_total"])}
        if plan.held_out and plan.due(step):
          values |= {f"held_out/{k}": float(v) for k, v in jax.device_get(plan.held_out(state)).items()}
          watch.go_on()
        log.write(step, values)
        bar.set_postfix({k[6:]: f"{v:.4g}" for k, v in _headline(values, plan.headline).items()}, refresh=False)
      if step == start + 1:
        environment.return_memory()  # the compiler's
      if step % min(plan.log_every, plan.patience) == 0:
        _check_patience(plan, state, step, index, checkpoints)
      stopping = hosts.stop_agreed(step) if several else stop.code is not None
      if stopping and step < plan.steps:
        checkpoints.save(step, state)
        checkpoints.finish()
        raise stop.stopped(f"saved at step {step} of {plan.name}; the same command resumes")
      if (step % plan.save_every == 0 or step == plan.steps) and not int(state.extra["skipped"]):
        checkpoints.save(step, state)
        environment.return_memory()
    checkpoints.finish()
    if stopping or stop.code is not None:
      raise stop.stopped(f"saved at the end of {plan.name}; the same command resumes")
  return state


def _check_patience(plan: Plan, state: State, step: int, index: np.ndarray, checkpoints: Checkpoints) -> None:
  skipped = int(state.extra["skipped"])
  if skipped >= plan.patience:
    checkpoints.finish()
    raise UserError(
      f"{plan.name}: {skipped} updates in a row were not finite (last at step {step}, examples "
      f"{', '.join(map(str, index[:8]))}, ...); stopped, the last good checkpoint is kept"
    )


def _headline(values: dict[str, float], names: tuple[str, ...]) -> dict[str, float]:
  """The losses for the progress bar, what matters first: few enough for one line."""
  every = sorted(k[6:] for k in values if k.startswith("train/") and "grad" not in k and "skip" not in k)
  wanted = dict.fromkeys(["total", *(names or every)])
  return {f"train/{name}": values[f"train/{name}"] for name in [n for n in wanted if n in every][:5]}


class _Watch:
  """Seconds a step and the share of them spent waiting for data, since the last line of the log."""

  def __init__(self, step: int):
    self.step, self.begin, self.waited = step, time.perf_counter(), 0.0

  def read(self, step: int) -> dict[str, float]:
    now = time.perf_counter()
    span, steps = now - self.begin, step - self.step
    out = {"time/step_s": span / steps, "time/data_wait": self.waited / span}
    self.step, self.begin, self.waited = step, now, 0.0
    return out

  def go_on(self) -> None:
    """What was done since the last line was no step."""
    self.begin = time.perf_counter()
