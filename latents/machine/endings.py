"""How a command ends: exit codes, and signals."""

import contextlib
import os
import signal
import sys
import threading
import time
import traceback
from collections.abc import Callable, Iterable, Iterator
from typing import Any, NoReturn, TextIO

from latents.errors import UserError
from latents.machine import shouts
from latents.machine.disk import disk_reason

PREEMPTED = 75  # EX_TEMPFAIL of sysexits.h: schedulers take it for 'try again'
INTERRUPTED = 130
# signal -> (exit code, what is said)
ENDS = {
  signal.SIGINT: (INTERRUPTED, "interrupted"),
  signal.SIGTERM: (PREEMPTED, "asked to stop"),
  signal.SIGHUP: (PREEMPTED, "asked to stop, the terminal is gone"),
}
AGAIN = "interrupted again: ended at once; the last complete checkpoint stands"
LATE_S = 0.3  # for the main thread to end the process itself
SAME_S = 0.05  # a ^C that comes so soon after another is the same one, passed on by a launcher (`timeout -s INT`)


def follow(stream: TextIO) -> None:
  """End as after SIGTERM once `stream` ends: a child whose standard input is a pipe from its parent goes with it,
  however the parent ends."""

  def wait() -> None:
    with contextlib.suppress(OSError):
      while os.read(stream.fileno(), 4096):  # not stream.read(): its lock would be held when the interpreter ends
        pass
    os.kill(os.getpid(), signal.SIGTERM)

  threading.Thread(target=wait, daemon=True, name="parent").start()


class Stopped(BaseException):
  """Asked to stop by a signal, and all that is to be saved is saved. code: what the command ends with."""

  def __init__(self, code: int, text: str):
    super().__init__(text)
    self.code = code


class Request:
  """Signals within ask for an end, and whoever works looks at `code` at each step: None, 130 after ^C, 75 after SIGTERM
  or SIGHUP. A second ^C ends the process at once.

  Among several processes jax's own handler must hear that one of them is to stop, so that all stop at the same step
  (`relay`: SIGTERM is left to it, and other signals become one). told: what happens now, said after the first ^C.
  """

  def __init__(self, told: str, relay: bool = False):
    self.code: int | None = None
    self.told = told
    self._relay, self._since, self._heard = relay, 0.0, 0.0

  def __enter__(self) -> "Request":
    numbers = [n for n in ENDS if not (self._relay and n == signal.SIGTERM)]
    self._handled = _handled(self._ask, numbers, self._hear)
    self._handled.__enter__()
    return self

  def __exit__(self, *error: Any) -> None:
    self._handled.__exit__(*error)

  def check(self) -> None:
    """Raise Stopped if an end is asked for."""
    if self.code is not None:
      raise self.stopped("the same command goes on")

  def stopped(self, done: str) -> Stopped:
    """What ends the command, which says what is done; of several processes one that was not asked ends as preempted."""
    reason = "interrupted" if self.code == INTERRUPTED else "asked to stop"
    return Stopped(self.code or PREEMPTED, f"{reason}: {done}")

  def _hear(self, number: int) -> tuple[int, str] | None:
    now = time.monotonic()
    if not self._heard:
      self._heard = now
    again = number == signal.SIGINT and now - self._heard > SAME_S
    return (INTERRUPTED, AGAIN) if again else None

  def _ask(self, number: int, _: Any) -> None:
    now = time.monotonic()
    if self.code is not None and number == signal.SIGINT:
      if now - self._since > SAME_S:
        _end(INTERRUPTED, AGAIN)
      return
    if self.code is None:
      self.code, self._since = ENDS[signal.Signals(number)][0], now
      if number == signal.SIGINT:
        _write(f"interrupted: {self.told}; ^C again ends at once")
      if self._relay:
        signal.raise_signal(signal.SIGTERM)


@contextlib.contextmanager
def stoppable() -> Iterator[None]:
  """SIGTERM and SIGHUP within end the process at once with 75, ^C with 130: outside of a training loop nothing is to be
  saved.

  No exception: libraries swallow one that a signal raises within their callbacks, jax's at garbage collection among
  them. Among several processes jax's own handler takes SIGTERM from `jax.distributed` on, for the loop to ask at each
  step; work without such steps (scoring) puts this one back, and what follows it is the command's end.
  """

  def hear(number: int) -> tuple[int, str]:
    code, reason = ENDS[signal.Signals(number)]
    return code, f"{reason}; the same command goes on"

  with _handled(lambda number, _: _end(*hear(number)), ENDS, hear):
    yield


@contextlib.contextmanager
def unwound() -> Iterator[None]:
  """Signals within raise Stopped, so that temporary files are removed: for work that calls no jax."""

  def end(number: int, _: Any) -> None:
    code, reason = ENDS[signal.Signals(number)]
    raise Stopped(code, f"{reason}; nothing was written")

  with _handled(end, ENDS):
    yield


# a signal -> (exit code, what is said) where it ends the process at once
Hear = Callable[[int], tuple[int, str] | None]


@contextlib.contextmanager
def _handled(
  handler: Callable[[int, Any], None], numbers: Iterable[int], hear: Hear = lambda _: None
) -> Iterator[None]:
  """The handler of these signals within; what the caller has set to be ignored (nohup) stays so.

  hear: for the thread that listens, since no handler runs while the main thread is within a library, in a long
  compilation say.
  """
  before = {}
  for number in numbers:
    with contextlib.suppress(ValueError):  # not the main thread: a notebook or a test keeps its own handlers
      if signal.getsignal(number) is not signal.SIG_IGN:
        before[number] = signal.signal(number, handler)
  _hearing.append(hear if before else lambda _: None)
  try:
    yield
  finally:
    _hearing.pop()
    for number, old in before.items():
      signal.signal(number, signal.SIG_DFL if old is None else old)


_hearing: list[Hear] = []
_ending = threading.Lock()


@contextlib.contextmanager
def _listening() -> Iterator[None]:
  """Within, a thread hears of signals, and ends the process where the main thread has not done so in time."""
  read, write = os.pipe()
  os.set_blocking(write, False)
  try:
    before = signal.set_wakeup_fd(write, warn_on_full_buffer=False)
  except ValueError:  # not the main thread
    before = None
  threading.Thread(target=_listen, args=(read,), daemon=True, name="signals").start()
  try:
    yield
  finally:
    if before is not None:
      signal.set_wakeup_fd(before)
    os.close(write)


def _listen(read: int) -> None:
  while number := os.read(read, 1):
    hear = _hearing[-1] if _hearing else None
    if hear is not None and number[0] in ENDS and (told := hear(number[0])):
      timer = threading.Timer(LATE_S, _late, (hear, told))
      timer.daemon = True
      timer.start()
  os.close(read)


def _late(hear: Hear, told: tuple[int, str]) -> None:
  if _hearing and _hearing[-1] is hear:
    _end(*told)


def _end(code: int, reason: str) -> None:
  """End this process now, from within a signal's handler or the thread that listens."""
  if not _ending.acquire(blocking=False):
    time.sleep(3600)  # it is ended already
  try:
    _write(reason)  # the signal may have come in the middle of a print
    if threading.current_thread() is threading.main_thread():
      with contextlib.suppress(Exception):
        sys.stdout.flush()
    _failed(UserError(reason), code)
  finally:
    os._exit(code)


def _write(text: str) -> None:
  with contextlib.suppress(OSError):
    os.write(2, f"latents: {text}\n".encode())


def guarded(call: Callable[[], int | None]) -> int:
  """The exit code of a command: 0 done, 1 a defect (with its traceback), 2 bad input, 75 preempted with the
  state saved, 76 another process is lost, 130 interrupted. Bad input is one line on stderr."""
  shouts.quieten()
  with contextlib.redirect_stderr(shouts.Steady(sys.stderr)), _listening():
    return _guarded(call)


def _guarded(call: Callable[[], int | None]) -> int:
  try:
    with stoppable():
      code = call() or 0
  except UserError as error:
    return _failed(error, 2, f"error: {error}")
  except Stopped as error:
    _say(str(error))
    code = error.code
  except KeyboardInterrupt:  # before `stoppable`, or of a thread's own handler
    reason = "interrupted; the same command goes on"
    return _failed(UserError(reason), INTERRUPTED, reason)
  except BrokenPipeError:
    os.dup2(os.open(os.devnull, os.O_WRONLY), 1)  # or the interpreter says it again as it ends
    return 0
  except Exception as error:  # noqa: BLE001  (a defect: shown in full)
    if reason := disk_reason(error):
      where = getattr(error, "filename", None)
      return _failed(UserError(reason), 2, f"error: {where or 'cannot write'}: {reason}")
    if (hosts := _hosts()) is None or not hosts.is_echo(error):
      traceback.print_exception(error)
    return _failed(error, 1)
  if hosts := _hosts():
    hosts.finish()
  return code


def leave(code: int) -> NoReturn:
  """End after an error without a wait for threads: one of them may be what hangs."""
  for stream in (sys.stdout, sys.stderr):
    with contextlib.suppress(OSError):
      stream.flush()
  os._exit(code)


def _hosts() -> Any:
  """The module of the other processes, if this command came so far as to need it."""
  return sys.modules.get("latents.machine.hosts")


def _failed(error: BaseException, code: int, text: str = "") -> int:
  """The exit code; among several processes it tells the others and does not return."""
  if text:
    _say(text)
  hosts = _hosts()
  return hosts.failed(error, code) if hosts else code


def _say(text: str) -> None:
  print(f"latents: {' '.join(text.split())}", file=sys.stderr, flush=True)
