"""Bars for people: on a terminal a live line, in a log a line now and then."""

import sys
from collections.abc import Callable, Iterable, Iterator
from typing import Any

from tqdm import tqdm

from latents.machine import hosts


def bar(what: str, total: int | None, unit: str, start: int = 0) -> tqdm:
  """A bar on standard error, of the first process; total None: not known."""
  terminal = sys.stderr.isatty()
  return tqdm(
    total=total,
    initial=start,
    desc=what,
    unit=unit,
    mininterval=0.2 if terminal else 15.0,
    disable=not hosts.first(),
    dynamic_ncols=terminal,
  )


def over(rows: Iterable[Any], what: str, total: int, count: Callable[[Any], int]) -> Iterator[Any]:
  """The rows, with a bar of `total` examples; count: the examples in one of them."""
  with bar(what, total, "example") as shown:
    for row in rows:
      yield row
      shown.update(count(row))
