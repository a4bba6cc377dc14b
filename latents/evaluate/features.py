"""Features of whole sets of images, for metrics between distributions, and the note on how they came."""

import dataclasses
from collections.abc import Callable, Iterable

import jax
import numpy as np

from latents.errors import UserError
from latents.evaluate.base import Tree
from latents.pretrained import EfficientNetLite0
from latents.types import Array


@dataclasses.dataclass(frozen=True)
class Protocol:
  """What a distance between distributions depends on besides the images; stored with every value.

  network: name of the feature network. resize: what was done to the images before it. n: images a side
  (the smaller number). reference: what the real images are, e.g. "clothing128 test".
  """

  network: str
  resize: str
  n: int
  reference: str

  def note(self) -> str:
    """One line for reports."""
    return f"{self.network}, {self.resize}, n={self.n}, against {self.reference}"


@dataclasses.dataclass(frozen=True)
class EfficientNetFeatures:
  """Pooled EfficientNet-Lite0 features [B,1280] of images. Not Inception: its distances are not FID.

  side: smaller images are scaled up bilinearly (no antialias) to this side; larger ones stay.
  """

  side: int = 64

  def load(self) -> Tree:
    """The network's weights; UserError that says what to install."""
    return EfficientNetLite0(self.side).load()

  def __call__(self, params: Tree, x: Array) -> Array:
    """x [B,H,W,C] (or video, by frame) in [-1,1] -> [B,1280] float32; jit-able."""
    with jax.default_matmul_precision("float32"):  # not bfloat16 or TF32, the accelerators' default
      return EfficientNetLite0(self.side).features(params, x).pooled

  def protocol(self, n: int, reference: str) -> Protocol:
    """The note that belongs to values from these features."""
    return Protocol("efficientnet_lite0", f"bilinear up to {self.side} px", n, reference)


def collect(extract: Callable[[Array], Array], batches: Iterable[tuple[Array, Array]]) -> np.ndarray:
  """Features of all images: batches of (x [B,...], mask [B] bool) -> [N,F] float64, padding left out.

  extract: x -> [B,F], e.g. `jax.jit(lambda x: features(params, x))`. Raises UserError without images.
  """
  rows = [np.asarray(extract(x), np.float64)[np.asarray(mask, bool)] for x, mask in batches]
  if not sum(map(len, rows)):
    raise UserError("no images to take features of")
  return np.concatenate(rows)
