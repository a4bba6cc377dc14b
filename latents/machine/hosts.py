"""Several processes as one run: how they find each other, meet, agree, and learn that one is gone.

jax.distributed is the engine. Beside it stands a watch in every process: each says every few seconds
that it lives, the first one looks who has gone silent, and who fails says why before it ends. So a lost
process ends the others, with a line that names it, however deep they wait in a collective. With one
process every function here does the obvious and costs nothing.
"""

import os
import socket
import sys
import threading
import time
from collections.abc import Mapping
from typing import Any

import jax
import numpy as np
from jax.sharding import NamedSharding, PartitionSpec

from latents.errors import UserError, first_line
from latents.machine.cluster import SET, check_told, recognise

LOST = 76  # exit code of a process that ends because another one did
SILENCE_S = 30.0  # a process that has not been heard of for so long is taken for dead
POLL_S = 1.0
START_S = 300  # to find each other
SHUTDOWN_S = 60  # all have just met: only a machine that stands still needs so long
MEET_S = 1800.0  # to arrive where all meet; the first one may be scoring or writing a large file


def start(given: Mapping[str, str]) -> None:
  """Find the other processes; to be called before jax is used. UserError if that fails or their number is wrong."""
  cluster = recognise(given)
  if cluster is None:
    raise UserError(f"--distributed: no TPU pod, Slurm step or MPI run is recognised; {SET}")
  check_told(cluster)
  if cluster.processes is not None and cluster.process is not None and cluster.process >= cluster.processes:
    raise UserError(f"this is process {cluster.process} of {cluster.processes}: numbers go from 0")
  options: dict[str, Any] = {"initialization_timeout": START_S, "shutdown_timeout_seconds": SHUTDOWN_S}
  options |= {"heartbeat_timeout_seconds": int(3 * SILENCE_S)}  # ours speaks first: it knows names
  if cluster.coordinator is not None:
    options |= {"coordinator_address": cluster.coordinator, "num_processes": cluster.processes}
    options |= {"process_id": cluster.process, "local_device_ids": cluster.local}
    options |= {"cluster_detection_method": "deactivate"}
  try:
    jax.distributed.initialize(**options)
  except Exception as error:  # noqa: BLE001  (jaxlib's own kinds: time-outs, ports in use)
    raise UserError(
      f"the processes ({cluster.kind}, {cluster.processes or 'an unknown number'}) did not find each other: "
      f"{first_line(error)}"
    ) from None
  if cluster.processes is not None and jax.process_count() != cluster.processes:
    raise UserError(f"{jax.process_count()} processes came together, {cluster.processes} were started")
  _Watch.instance = _Watch()
  meet("start", START_S)


def processes() -> int:
  """How many there are."""
  return jax.process_count()


def first() -> bool:
  """Whether this process writes: files, pictures, lines on the terminal."""
  return jax.process_index() == 0


def meet(name: str, seconds: float = MEET_S) -> None:
  """Wait until all processes are here. UserError that names who is missing after `seconds`."""
  watch = _Watch.instance
  if watch is not None:
    watch.meet(name, seconds)


def exchange(name: str, word: str, seconds: float = MEET_S) -> list[str]:
  """Every process's word, in their order. All must call it, with the same name."""
  watch = _Watch.instance
  return [word] if watch is None else watch.exchange(name, word, seconds)


def tell(name: str, word: str) -> str:
  """The first process's word, on all."""
  return exchange(name, word if first() else "")[0]


def stop_agreed(step: int) -> bool:
  """Whether all stop after this step, since one got a preemption notice (SIGTERM). To be asked at every step."""
  from jax.experimental import multihost_utils  # its manager is made by jax.distributed

  return multihost_utils.reached_preemption_sync_point(step)


def gather(tree: Any) -> Any:
  """Global arrays -> numpy, whole, on every process."""
  if jax.process_count() == 1 or not jax.tree.leaves(tree):
    return jax.device_get(tree)
  meshes = {a.sharding.mesh for a in jax.tree.leaves(tree) if isinstance(a.sharding, NamedSharding)}
  whole = NamedSharding(meshes.pop(), PartitionSpec())
  copied = jax.jit(lambda t: t, out_shardings=whole)(tree)
  return jax.tree.map(lambda a: np.asarray(a.addressable_data(0)), copied)


def finish() -> None:
  """Leave in order: all have come to the end of their work."""
  watch, _Watch.instance = _Watch.instance, None
  if watch is not None:
    watch.meet("end", MEET_S)
    watch.stop()
    jax.distributed.shutdown()


def failed(error: BaseException, code: int) -> int:
  """To be called as a process ends with an error: tells the others why, or learns who was lost.

  The exit code: `code`, or LOST if the error only echoes the end of another process. Ends this process
  at once if there are others: they may wait in collectives that will never be complete.
  """
  watch = _Watch.instance
  if watch is None:
    return code
  if not isinstance(error, UserError) and is_echo(error):
    watch.await_news(SILENCE_S + 5 * POLL_S)  # ends the process if there is news
    line = f"latents: error: the connection to another process is lost: {first_line(error)}"
    print(line, file=sys.stderr, flush=True)
    code = LOST
  watch.announce(code, " ".join(str(error).split()) or type(error).__name__)
  watch.leave(code)
  return code


def is_echo(error: BaseException) -> bool:
  """Whether, among several processes, it is the transport's: that a peer is gone, but not which and why."""
  if _Watch.instance is None:
    return False
  words = ("gloo", "connection closed", "connection reset", "socket closed", "coordination", "unavailable:", "nccl")
  return any(word in str(error).lower() for word in words)


class _Watch:
  """The thread that says we live and hears who does not; and the key-value store behind meeting and telling."""

  instance: "_Watch | None" = None

  def __init__(self):
    from jax._src import distributed  # jax gives no public way to its store and barriers

    self.client: Any = distributed.global_state.client
    self.number, self.count = jax.process_index(), jax.process_count()
    self.client.key_value_set(f"latents/who/{self.number}", f"{socket.gethostname()}, pid {os.getpid()}")
    self.rounds: dict[str, int] = {}
    self.over = threading.Event()
    self.thread = threading.Thread(target=self._run, name="latents watch", daemon=True)
    self.thread.start()

  def stop(self) -> None:
    """End the thread: one that is within jaxlib as the interpreter ends aborts the process."""
    self.over.set()
    self.thread.join(SILENCE_S)

  def who(self, number: int) -> str:
    """'process 3 (host, pid 17)'."""
    try:
      return f"process {number} ({self.client.key_value_try_get(f'latents/who/{number}')})"
    except Exception:  # noqa: BLE001  (jaxlib's own kinds: it had not come so far, or the store is gone)
      return f"process {number}"

  def meet(self, name: str, seconds: float) -> None:
    turn = self._turn(name)
    self.client.key_value_set(f"latents/at/{turn}/{self.number}", "")
    try:
      self.client.wait_at_barrier(f"latents/{turn}", int(1000 * seconds))
    except Exception as error:
      there = {int(key.rsplit("/", 1)[1]) for key, _ in self.client.key_value_dir_get(f"latents/at/{turn}")}
      missing = [self.who(n) for n in range(self.count) if n not in there]
      if not missing:
        raise
      raise UserError(f"waited {seconds:.0f} s at '{name}' for {', '.join(missing)}: {first_line(error)}") from None

  def exchange(self, name: str, word: str, seconds: float) -> list[str]:
    key = f"latents/told/{self._turn(f'told {name}')}"
    self.client.key_value_set(f"{key}/{self.number}", f"={word}")  # an empty value cannot be told from none
    self.meet(name, seconds)
    return [self.client.blocking_key_value_get(f"{key}/{n}", int(1000 * seconds))[1:] for n in range(self.count)]

  def _turn(self, name: str) -> str:
    self.rounds[name] = self.rounds.get(name, 0) + 1
    return f"{name.replace('/', '.')}.{self.rounds[name]}"

  def announce(self, code: int, reason: str) -> None:
    """Say that we end; the first to say so is heard."""
    try:
      self.client.key_value_set("latents/failed/0", f"{self.number} {code} {reason}")
    except Exception:  # noqa: BLE001  (said already, or nobody there to hear)
      return

  def await_news(self, seconds: float) -> None:
    """Give the watch time to learn whose end this is; it ends the process when it knows."""
    time.sleep(seconds)

  def _run(self) -> None:
    heard = {n: ("", time.monotonic()) for n in range(self.count)}
    beat = 0
    while not self.over.is_set():
      beat += 1
      try:
        self.client.key_value_set(f"latents/beat/{self.number}", str(beat), allow_overwrite=True)
        news = self.client.key_value_dir_get("latents/failed")
        if not news and self.number == 0:
          self._look(heard)
      except Exception as error:  # noqa: BLE001  (the store lies in process 0)
        if self.number and not self.over.is_set():
          self._end(f"{self.who(0)} is gone: {first_line(error)}", LOST)
        return
      if news:
        number, code, reason = news[0][1].split(" ", 2)
        if int(number) != self.number:
          self._end(f"{self.who(int(number))} ended: {reason}", int(code))
        return
      self.over.wait(POLL_S)

  def _look(self, heard: dict[int, tuple[str, float]]) -> None:
    now = time.monotonic()  # a clock that is set does not touch it
    for key, beat in self.client.key_value_dir_get("latents/beat"):
      number = int(key.rsplit("/", 1)[1])
      if beat != heard[number][0]:
        heard[number] = (beat, now)
    for number, (_, since) in heard.items():
      if now - since > SILENCE_S:
        reason = f"{self.who(number)} has been silent for {SILENCE_S:.0f} s: it was killed, or its machine is gone"
        self.client.key_value_set("latents/failed/0", f"{number} {LOST} {reason}")
        self._end(reason, LOST)

  def _end(self, text: str, code: int) -> None:
    print(f"latents: error: {text}", file=sys.stderr, flush=True)
    self.leave(code)

  def leave(self, code: int) -> None:
    """End this process, whatever its threads wait for."""
    if self.number == 0:
      time.sleep(3 * POLL_S)  # it keeps the news: it must not be gone before they are read
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(code)
