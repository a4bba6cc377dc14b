"""The size of a latent that has neither codes nor noise, whose bits are therefore not known."""

import dataclasses
import math

import numpy as np

from latents.evaluate.latent.base import Held, LatentMetric, Layout
from latents.evaluate.sums import Tree
from latents.types import Latent


@dataclasses.dataclass(frozen=True)
class Numbers(LatentMetric):
  """How many numbers, and how their channels' deviations differ: {"numbers", "std_spread": [least, most]}."""

  def fits(self, layout: Layout) -> bool:
    """Of latents whose bits no capacity counts."""
    return not layout.vocab and not layout.gaussian

  def init(self, layout: Layout) -> Tree:
    """Nothing need be seen."""
    return {}

  def update(self, acc: Tree, latent: Latent, held: Held) -> Tree:
    """Nothing is counted."""
    return acc

  def result(self, acc: Tree, layout: Layout) -> dict[str, float | list[float]]:
    """std_spread: of the deviations over the training data, by which the latents were normalised."""
    std = np.asarray(layout.std)
    return {"numbers": math.prod(layout.shape), "std_spread": [float(std.min()), float(std.max())]}
