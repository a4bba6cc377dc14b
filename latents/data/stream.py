"""Batches as they come out of Grain: what ends its workers, and what says that one has ended or hangs."""

import contextlib
import multiprocessing
import os
import pickle
import queue
import re
import signal
import threading
import time
import warnings
from collections.abc import Iterator
from typing import Any

import numpy as np

from latents.data.source import Broken
from latents.errors import UserError

STALL = 600.0  # s without a batch until the run ends with an error: a worker, or the disk below it, hangs
OPENING = 3.0  # times as long for the first batch: a folder of a million files is looked through first
NOTICE = 60.0  # s of waiting until a warning says so
GRACE = 60.0  # s that a worker lives on after a SIGTERM, so that its parent can end in good order
PATIENCE = 5.0  # s that closing waits for a batch that is being made
PULSE = 1.0  # s between two looks at whether parents and workers live
HASTE = 0.05  # the same until all workers were seen: one that ends unseen is forgotten by Python, and waited for


class Batches(Iterator[dict[str, np.ndarray]]):
  """An iterator of batches that owns threads or worker processes: call `close` when done with it.

  One more batch is made ahead. UserError when a worker dies, and when no batch comes for `STALL` seconds.
  """

  def __init__(self, iterator: Any, count: int | None = None, workers: int = 0):
    self.iterator, self.count, self.workers = iterator, count, workers
    self.ready: queue.Queue[Any] = queue.Queue(1)
    self.closed = threading.Event()
    self.feeder: threading.Thread | None = None
    self.first = True  # no batch has come yet
    self.crew: set[Any] = set()  # worker processes, as far as they were seen
    self.error: BaseException | None = None

  def __len__(self) -> int:
    """The number of batches of an evaluation; TypeError for the endless training stream."""
    if self.count is None:
      raise TypeError("the training stream has no end")
    return self.count

  def __next__(self) -> dict[str, np.ndarray]:
    if self.error is not None:
      raise self.error
    if self.feeder is None:  # a daemon: a thread that hangs must not keep the process from ending
      self.feeder = threading.Thread(target=self._feed, name="latents-batches", daemon=True)
      self.feeder.start()
    try:
      batch = self._wait()
    except BaseException as error:
      self.error = error
      raise
    self.first = False
    if len(self.crew) < self.workers:
      self._look()
    return batch

  def _feed(self) -> None:
    while not self.closed.is_set():
      try:
        made, error = next(self.iterator), None
      except BaseException as failed:  # noqa: BLE001  (whatever it is, the reader is told)
        made, error = None, failed
      while not self.closed.is_set():
        with contextlib.suppress(queue.Full):
          self.ready.put((made, error), timeout=PULSE)
          break
      if error is not None:
        return

  def _wait(self) -> dict[str, np.ndarray]:
    """The next batch, or the UserError that says why there is none."""
    begin, told = time.monotonic(), False
    limit = STALL * (OPENING if self.first else 1)
    while True:
      try:
        made, error = self.ready.get(timeout=PULSE if len(self.crew) >= self.workers else HASTE)
        break
      except queue.Empty:
        waited = time.monotonic() - begin
      self._look()
      if waited > limit:
        raise UserError(self._stalled(limit))
      if waited > NOTICE and not told:
        told = True
        warnings.warn(f"no data for {waited:.0f} s: an error after {limit:.0f} s", stacklevel=3)
    if error is None:
      return made
    found = explain(error)
    if found is not None:
      raise found from error
    raise error

  def _look(self) -> None:
    """Grain notices a worker that ended, but not one that ended with code 0: it would wait for ever."""
    if self.workers:
      self.crew |= set(crew())
      for process in self.crew:
        if process.exitcode == 0:
          process._popen.returncode = 1

  def _stalled(self, limit: float) -> str:
    for process in self.crew:
      process.kill()  # Grain would wait 25 s for each
    if self.workers:
      who = f"one of the {self.workers} data workers hangs, or reads from a disk that does not answer"
    else:
      who = "reading or decoding an example hangs: the disk may not answer"
    return f"no batch of data came for {limit:.0f} s: {who}"

  def close(self) -> None:
    """Ends the threads and worker processes."""
    self.closed.set()
    with contextlib.suppress(queue.Empty):
      self.ready.get_nowait()
    if self.feeder is not None and self.error is None:
      self.feeder.join(PATIENCE)  # Grain must not be closed while it makes a batch
    self._look()
    self.iterator.close()

  def __enter__(self) -> "Batches":
    return self

  def __exit__(self, *_: object) -> None:
    self.close()


def explain(error: BaseException) -> UserError | None:
  """What a user can mend of an error of the data, as one line; None for all else."""
  if isinstance(error, Broken):
    return UserError(str(error))
  found = re.search(r"terminated unexpectedly with exit code (-?\d+)", str(error))
  if not isinstance(error, RuntimeError) or not found:
    return None
  code = int(found.group(1))
  why = f"ended with exit code {code}"
  if code < 0:
    why = f"was killed by {signal.Signals(-code).name}"
  if code == -signal.SIGKILL:
    why += " (the system does so when memory is full: fewer workers need less)"
  elif code == -signal.SIGBUS:
    why += " (shared memory may be full: `df /dev/shm`; with docker, --shm-size)"
  return UserError(f"a data worker {why}; the same command goes on from the last checkpoint")


def iterate(steps: Any, start: int, workers: int) -> Any:
  """Steps -> a Grain iterator from step `start`. Whole batches are the elements, so that neither threads nor
  workers can change what is in one."""
  import grain  # a second, which those who only describe data need not wait

  threads = 1 if workers else min(4, os.cpu_count() or 1)
  data = grain.MapDataset.source(steps)[start:]
  data = data.to_iter_dataset(grain.ReadOptions(num_threads=threads, prefetch_buffer_size=4))
  if workers:
    from absl import flags

    if not flags.FLAGS.is_parsed():
      flags.FLAGS.mark_as_parsed()  # Grain's workers read absl flags, and latents has none
    data = data.mp_prefetch(grain.MultiprocessingOptions(num_workers=workers), enlist)
  return iter(data)


def enlist(index: int, count: int) -> None:
  """What a new worker process does first: it ends when its parent does, and not before.

  Grain's workers outlive a parent that is killed, and hold memory and shared memory until someone ends them.
  A SIGTERM or Ctrl-C that the whole process group gets must leave them to the parent, which saves its state.
  """
  parent = multiprocessing.parent_process()
  assert parent is not None and index < count
  signal.signal(signal.SIGINT, signal.SIG_IGN)
  signal.signal(signal.SIGTERM, lambda *_: end_in(GRACE))
  threading.Thread(target=follow, args=(parent.pid,), daemon=True).start()


def end_in(seconds: float) -> None:
  """Ends this process after a while, whatever it does then."""
  timer = threading.Timer(seconds, os._exit, (128 + signal.SIGTERM,))
  timer.daemon = True
  timer.start()


def follow(parent: int | None) -> None:
  """Ends this process within `PULSE` seconds of its parent's end."""
  # not PR_SET_PDEATHSIG: it fires when the *thread* ends that made the worker, and Grain's do
  while os.getppid() == parent:
    time.sleep(PULSE)
  os._exit(1)


def crew() -> list[Any]:
  """The worker processes of Grain that live."""
  return [p for p in multiprocessing.active_children() if p.name.startswith("grain-process-prefetch")]


def worker() -> bool:
  """Whether this is a worker process."""
  return multiprocessing.parent_process() is not None


def portable(error: Exception) -> Exception:
  """The error, or one that says the same, that can travel between processes: Grain waits for ever for others."""
  try:
    if type(pickle.loads(pickle.dumps(error))) is type(error):
      return error
  except Exception:  # noqa: BLE001  (errors of other packages fail to be rebuilt in many ways)
    pass
  return RuntimeError(f"{type(error).__name__}: {error}")
