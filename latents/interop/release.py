"""Released weights: found, checked against the hash of the declaration, read by their layout."""

from pathlib import Path

import numpy as np

from latents.declare import Released
from latents.interop.latents import read_latents
from latents.pretrained.readers import check_sha256

READERS = {"latents": read_latents}


def read_release(released: Released) -> dict[str, np.ndarray]:
  """The arrays of a release by the paths of our variables. UserError for a file that is missing or another one."""
  path = str(Path(released.path).expanduser())
  check_sha256(path, released.sha256)
  return READERS[released.layout](path)
