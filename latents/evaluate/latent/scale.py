"""How large the numbers of a latent are before they are normalised."""

import dataclasses

import numpy as np

from latents.evaluate.latent.base import Held, LatentMetric, Layout
from latents.evaluate.sums import Tree
from latents.types import Latent


@dataclasses.dataclass(frozen=True)
class Scale(LatentMetric):
  """{"scale": root mean square, over channels, of the deviations in the decoder's units} over the training data."""

  def fits(self, layout: Layout) -> bool:
    """Of continuous latents."""
    return not layout.vocab

  def init(self, layout: Layout) -> Tree:
    """Nothing need be seen: the deviations are those by which the latents were divided."""
    return {}

  def update(self, acc: Tree, latent: Latent, held: Held) -> Tree:
    """Nothing is counted."""
    return acc

  def result(self, acc: Tree, layout: Layout) -> dict[str, float | list[float]]:
    """See the class."""
    return {"scale": float(np.sqrt(np.square(np.asarray(layout.std, np.float64)).mean()))}
