"""How much detail samples have, by octaves."""

import dataclasses
from typing import ClassVar

import numpy as np

from latents.evaluate.paired.energy import Bands
from latents.evaluate.samples.base import Examples, Features, Measured, SampleMetric
from latents.evaluate.sums import Tree
from latents.types import Array


@dataclasses.dataclass(frozen=True)
class Octaves(Features):
  """The energy of a picture in octaves: [B,*S,C] -> [B,bands], mean squares; edges as in `Bands`."""

  edges: tuple[float, ...] = (0.0625, 0.125, 0.25)
  name: ClassVar[str] = "octaves"
  kinds: ClassVar[tuple[str, ...]] = ("image", "video")

  def __call__(self, params: Tree, x: Array) -> Array:
    """See `Features`."""
    return Bands(self.edges).each(x)

  @property
  def note(self) -> str:
    """The edges."""
    return f"octaves up to {', '.join(f'{edge:g}' for edge in self.edges)} cycles a sample, and above"


@dataclasses.dataclass(frozen=True)
class SampleSpectrum(SampleMetric):
  """{"energy_0.0625": ratio, ..., "energy_top"}: mean energy of the samples in an octave over that of held-out
  examples; 1 = as much detail, whether or not it is the right one. nan where these have none."""

  features: Octaves = Octaves()
  training: ClassVar[int] = 0

  def compare(self, real: Examples, fake: Examples, train: Examples | None) -> dict[str, Measured]:
    """See `SampleMetric`."""
    there, drawn = (side.x.reshape(*side.x.shape[:2], -1).mean((0, 2)) for side in (real, fake))
    ratios = np.divide(drawn, there, out=np.full_like(there, np.nan), where=there != 0)
    note = f"mean energy in {self.features.note}; n={len(fake.x)} against {real.name} n={len(real.x)}"
    names = (*(f"energy_{edge:g}" for edge in self.features.edges), "energy_top")
    return {name: Measured(float(ratio), note) for name, ratio in zip(names, ratios, strict=True)}
