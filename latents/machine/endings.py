"""How a command ends: exit codes, and what threads and libraries shout while it does."""

import contextlib
import logging
import os
import signal
import sys
import threading
import traceback
import warnings
from collections.abc import Callable, Iterator
from typing import Any, NoReturn, TextIO

from latents.errors import UserError
from latents.machine.disk import disk_reason

PREEMPTED = 75  # EX_TEMPFAIL of sysexits.h: schedulers take it for 'try again'


def follow(stream: TextIO) -> None:
  """End as after SIGTERM once `stream` ends: a child whose standard input is a pipe from its parent goes with it,
  however the parent ends."""

  def wait() -> None:
    with contextlib.suppress(OSError):
      while os.read(stream.fileno(), 4096):  # not stream.read(): its lock would be held when the interpreter ends
        pass
    os.kill(os.getpid(), signal.SIGTERM)

  threading.Thread(target=wait, daemon=True, name="parent").start()


@contextlib.contextmanager
def stoppable() -> Iterator[None]:
  """SIGTERM within ends the process at once with 75: outside of a training loop nothing is to be saved.

  No exception: libraries swallow one that a signal raises within their callbacks. Among several processes jax's own
  handler takes the signal from `jax.distributed` on, for the loop to ask at each step; work without such steps
  (scoring) puts this one back, and what follows it is the command's end.
  """

  def end(*_: Any) -> None:
    reason = "asked to stop; the same command goes on"
    try:
      os.write(2, f"latents: {reason}\n".encode())  # the signal may have come in the middle of a print
      _failed(UserError(reason), PREEMPTED)
    finally:
      os._exit(PREEMPTED)

  try:
    before = signal.signal(signal.SIGTERM, end)
  except ValueError:  # not the main thread: a notebook or a test keeps its own handler
    yield
    return
  try:
    yield
  finally:
    signal.signal(signal.SIGTERM, signal.SIG_DFL if before is None else before)


def guarded(call: Callable[[], int | None]) -> int:
  """The exit code of a command: 0 done, 1 a defect (with its traceback), 2 bad input, 75 preempted with the
  state saved, 76 another process is lost, 130 interrupted. Bad input is one line on stderr."""
  warnings.showwarning = _warn
  threading.excepthook = _thread_failed
  sys.unraisablehook = _unraisable
  logging.getLogger("asyncio").setLevel(logging.CRITICAL)  # Orbax's writers: their errors reach us by the save
  try:
    with stoppable():
      code = call() or 0
  except UserError as error:
    return _failed(error, 2, f"error: {error}")
  except KeyboardInterrupt:
    reason = "interrupted; the same command goes on from the last checkpoint"
    return _failed(UserError(reason), 130, reason)
  except BrokenPipeError:
    return 0
  except Exception as error:  # noqa: BLE001  (a defect: shown in full)
    if type(error).__name__ == "Preempted":  # of train.loop, which is not imported for a command that never trains
      _say(str(error))
      code = PREEMPTED
    elif reason := disk_reason(error):
      return _failed(UserError(reason), 2, f"error: cannot write: {reason}")
    else:
      if (hosts := _hosts()) is None or not hosts.is_echo(error):
        traceback.print_exception(error)
      return _failed(error, 1)
  if hosts := _hosts():
    hosts.finish()
  return code


def leave(code: int) -> NoReturn:
  """End after an error without a wait for threads: one of them may be what hangs."""
  sys.stdout.flush()
  sys.stderr.flush()
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


def _thread_failed(failure: Any) -> None:
  """A disk error in a thread that saves is raised again, by the save, in one line; all others are shown."""
  if failure.exc_value is None or disk_reason(failure.exc_value) is None:
    threading.__excepthook__(failure)


def _unraisable(found: Any) -> None:
  """TensorStore says here that Orbax's event loop is gone, after a save that failed: no news."""
  if not (isinstance(found.exc_value, RuntimeError) and "Event loop is closed" in str(found.exc_value)):
    sys.__unraisablehook__(found)


def _warn(message: Any, category: Any, *_: Any) -> None:
  if issubclass(category, UserWarning):
    print(f"latents: warning: {' '.join(str(message).split())}", file=sys.stderr)
