"""The layout of this project: the arrays of an artefact's `weights.safetensors`, by the paths of its variables."""

import numpy as np

from latents.errors import UserError
from latents.pretrained.readers import read_safetensors


def read_latents(path: str) -> dict[str, np.ndarray]:
  """A safetensors file -> its arrays by name. UserError where a name stands below no collection."""
  found = read_safetensors(path)
  for name in found:
    if "/" not in name:
      raise UserError(f"{path} has an array '{name}', which is no path of a variable such as params/decoder/...")
  return found
