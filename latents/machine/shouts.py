"""What warnings, threads and libraries shout while a command runs and ends, and where it goes."""

import contextlib
import logging
import sys
import threading
import warnings
from collections.abc import Callable
from typing import Any

from latents.machine.disk import disk_reason


def quieten() -> None:
  """Warnings are a line each, and said once; of threads and of the collector only what is news."""
  warnings.showwarning = _warner()
  threading.excepthook = _thread_failed
  sys.unraisablehook = _unraisable
  logging.getLogger("asyncio").setLevel(logging.CRITICAL)  # Orbax's writers: their errors reach us by the save


class Steady:
  """A stream that loses what is written once its reader is gone: a terminal that was closed, a `tee` that ^C ended."""

  def __init__(self, stream: Any):
    self._stream = stream

  def write(self, text: str) -> int:
    """As of the stream; never an OSError."""
    with contextlib.suppress(OSError):
      self._stream.write(text)
    return len(text)

  def flush(self) -> None:
    """Likewise."""
    with contextlib.suppress(OSError):
      self._stream.flush()

  def __getattr__(self, name: str) -> Any:
    return getattr(self._stream, name)


def _thread_failed(failure: Any) -> None:
  """A disk error in a thread that saves is raised again, by the save, in one line; all others are shown."""
  if failure.exc_value is None or disk_reason(failure.exc_value) is None:
    threading.__excepthook__(failure)


def _unraisable(found: Any) -> None:
  """TensorStore says here that Orbax's event loop is gone, after a save that failed: no news."""
  if not (isinstance(found.exc_value, RuntimeError) and "Event loop is closed" in str(found.exc_value)):
    sys.__unraisablehook__(found)


def _warner() -> Callable[..., None]:
  """Shows a user's warnings in a line each, and each of them once: data that two stages read warn twice."""
  said: set[str] = set()

  def warn(message: Any, category: Any, *_: Any) -> None:
    text = " ".join(str(message).split())
    if issubclass(category, UserWarning) and text not in said:
      said.add(text)
      print(f"latents: warning: {text}", file=sys.stderr)

  return warn
