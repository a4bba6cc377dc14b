"""What metrics of samples see: features of a network, plain pixels, or bands of energy."""

import dataclasses
from collections.abc import Callable, Iterable
from typing import ClassVar

import jax
import numpy as np

from latents import media
from latents.errors import UserError
from latents.evaluate.samples.base import Features
from latents.evaluate.sums import Tree
from latents.pretrained import EfficientNetLite0
from latents.types import Array


@dataclasses.dataclass(frozen=True)
class EfficientNetFeatures(Features):
  """Pooled EfficientNet-Lite0 features [B,1280] of images. Not Inception: its distances are not FID.

  side: smaller images are scaled up bilinearly (no antialias) to this side; larger ones stay.
  """

  side: int = 64
  name: ClassVar[str] = "efficientnet_lite0"
  kinds: ClassVar[tuple[str, ...]] = ("image", "video")

  def load(self) -> Tree:
    """The network's weights; UserError that says what to install."""
    return EfficientNetLite0(self.side).load()

  def __call__(self, params: Tree, x: Array) -> Array:
    """x [B,H,W,C] (or video, by frame) in [-1,1] -> [B,1280] float32; jit-able."""
    with jax.default_matmul_precision("float32"):  # not bfloat16 or TF32, the accelerators' default
      return EfficientNetLite0(self.side).features(params, x).pooled

  @property
  def note(self) -> str:
    """The network, and how images came to its size."""
    return f"efficientnet_lite0, bilinear up to {self.side} px"


@dataclasses.dataclass(frozen=True)
class Signals(Features):
  """The signal as `media` has it judged: pictures as their pixels, sound as energies of bands.

  kind: of the signals. rate: of sound, in Hz.
  """

  kind: str = "image"
  rate: int | None = None
  jitted: ClassVar[bool] = False

  def __call__(self, params: Tree, x: Array) -> Array:
    """x [B,*S,C] -> [B,...]."""
    return media.kind(self.kind).judge(x, self.rate)

  @property
  def note(self) -> str:
    """What is judged, in words."""
    return media.kind(self.kind).on


def collect(extract: Callable[[Array], Array], batches: Iterable[tuple[Array, Array]]) -> np.ndarray:
  """Features of all examples: batches of (x [B,...], mask [B] bool) -> [N,...] float64, padding left out.

  extract: x -> [B,...], e.g. `jax.jit(lambda x: features(params, x))`. Raises UserError without examples.
  """
  rows = [np.asarray(extract(x), np.float64)[np.asarray(mask, bool)] for x, mask in batches]
  if not sum(map(len, rows)):
    raise UserError("no images to take features of")
  return np.concatenate(rows)
