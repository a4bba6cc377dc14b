"""Released weights: found, checked against the hash of the declaration, read by their layout."""

import hashlib
from pathlib import Path

import numpy as np

from latents.declare import Released
from latents.errors import UserError
from latents.interop.latents import read_latents

READERS = {"latents": read_latents}


def read_release(released: Released) -> dict[str, np.ndarray]:
  """The arrays of a release by the paths of our variables. UserError for a file that is missing or another one."""
  path = Path(released.path).expanduser()
  try:
    with path.open("rb") as file:
      found = hashlib.file_digest(file, "sha256").hexdigest()
  except OSError as error:
    raise UserError(f"released weights {released.path} cannot be read: {error.strerror}") from None
  if found != released.sha256:
    raise UserError(
      f"{released.path} is not the declared release: its SHA-256 begins with {found[:12]}, declared is "
      f"{released.sha256[:12]}"
    )
  return READERS[released.layout](str(path))
