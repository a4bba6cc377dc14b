"""Released weights: found, checked against the hash of the declaration, read by their layout."""

from pathlib import Path

import numpy as np

from latents.declare import Released
from latents.interop import hub, layouts
from latents.interop.latents import read_latents
from latents.pretrained.readers import check_sha256, read_weights


def read_release(released: Released) -> dict[str, np.ndarray]:
  """The arrays of a release by the paths of our variables. UserError for a file that is missing or another one."""
  path = str(hub.fetch(released.path)[0] if hub.is_hub(released.path) else Path(released.path).expanduser())
  check_sha256(path, released.sha256)
  if released.layout == "latents":
    return read_latents(path)
  return layouts.whole(layouts.take(released.layout, read_weights(path), path))
