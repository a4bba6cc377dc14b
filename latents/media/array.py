"""Any other array [*S,C] of float32: fields, spectra, latents of others. Its range is its own."""

from typing import Any, ClassVar

import numpy as np

from latents.media.base import Kind
from latents.media.drawing import heat


class ArrayKind(Kind):
  """A map of heat: the first signal axis down, all others across, between the extremes of what is drawn."""

  name: ClassVar[str] = "array"
  suffixes: ClassVar[tuple[str, ...]] = (".npz", ".png")

  def clip(self, x: np.ndarray) -> np.ndarray:
    """As it is."""
    return x

  def beside(self, rate: int | None) -> dict[str, Any]:
    """Its kind, which the shape does not say."""
    return {"kind": np.asarray(self.name)}

  def tiles(self, x: np.ndarray, rate: int | None) -> np.ndarray:
    """[N,*S,C] -> [N,H,W,3]."""
    flat = np.asarray(x, np.float64).reshape(len(x), x.shape[1] if x.ndim > 2 else 1, -1)
    finite = flat[np.isfinite(flat)]
    low, high = (finite.min(), finite.max()) if finite.size else (0.0, 1.0)
    level = np.nan_to_num((flat - low) / (high - low if high > low else 1.0), nan=0.0, posinf=1.0, neginf=0.0)
    return heat(np.clip(level, 0, 1))
