"""Flags of XLA, asked for only where the installed version has them: one that it does not know ends the process."""

import importlib.util
import mmap
from collections.abc import Iterable, Mapping
from pathlib import Path

LIBRARY = "libjax_common.so"  # of jaxlib: the flags of all platforms have their names in it


def flags(given: Mapping[str, str], wanted: Iterable[str]) -> dict[str, str]:
  """{"XLA_FLAGS": the wanted flags that are known, behind the given ones}; {} if that adds none.

  wanted: "--NAME=VALUE" each. A flag that is given already keeps its value. Starts no jax.
  """
  present = given.get("XLA_FLAGS", "").split()
  names = {flag.split("=")[0] for flag in present}
  added = known(flag for flag in wanted if flag.split("=")[0] not in names)
  return {"XLA_FLAGS": " ".join([*present, *added])} if added else {}


def known(wanted: Iterable[str]) -> list[str]:
  """The flags "--NAME=VALUE" whose name stands in XLA's library; none where that cannot be read."""
  wanted, found = list(wanted), importlib.util.find_spec("jaxlib")
  if not wanted or found is None or found.origin is None:
    return []
  try:
    with (Path(found.origin).parent / LIBRARY).open("rb") as file:
      text = mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ)
  except OSError:
    return []
  with text:
    return [flag for flag in wanted if text.find(flag.split("=")[0].lstrip("-").encode() + b"\0") >= 0]
