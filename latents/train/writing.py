"""Orbax's handler of a tree of arrays, which keeps what its background writes meet.

Orbax's own manager holds such an error back until its threads have met at a barrier. Among several processes they
never do where one could not write: that one must hear of it at once, and end the others.
"""

import dataclasses
from typing import Any

import orbax.checkpoint as ocp


class Handler(ocp.StandardCheckpointHandler):
  """`met` is the first error of a write in the background, or None."""

  met: BaseException | None = None

  async def async_save(self, *args: Any, **named: Any) -> list[Any]:
    """Starts the writes; their futures are watched."""
    return [_Watched(future, self) for future in await super().async_save(*args, **named) or ()]

  def finalize(self, directory: Any) -> None:
    """Orbax's last step on the first process, after all have written."""
    try:
      super().finalize(directory)
    except BaseException as error:
      self.met = self.met or error
      raise


@ocp.args.register_with_handler(Handler, for_save=True)
@dataclasses.dataclass
class Save(ocp.args.StandardSave):
  """What to save, for `Handler`."""


@ocp.args.register_with_handler(Handler, for_restore=True)
@dataclasses.dataclass
class Restore(ocp.args.StandardRestore):
  """What to restore, for `Handler`."""


class _Watched:
  """A future of Orbax's protocol."""

  def __init__(self, future: Any, handler: Handler):
    self.future, self.handler = future, handler

  def result(self, timeout: float | None = None) -> Any:
    try:
      return self.future.result(timeout)
    except BaseException as error:
      self.handler.met = self.handler.met or error
      raise

  def cancel(self) -> bool | None:
    return self.future.cancel()
