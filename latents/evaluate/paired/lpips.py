"""LPIPS as a metric."""

import dataclasses
from typing import ClassVar

import jax

from latents.evaluate.paired.base import MeanMetric
from latents.evaluate.sums import Tree
from latents.pretrained import LPIPS
from latents.pretrained.lpips import Net
from latents.types import Array


@dataclasses.dataclass(frozen=True)
class LPIPSMetric(MeanMetric):
  """Mean LPIPS v0.1 distance (arXiv:1801.03924); 0 = equal. Values of different nets do not compare.

  net: alex is the convention for reporting. path, heads: weights files as of `LPIPSLoss`. A model that
  was trained on the same net's LPIPS is favoured by it. Needs `aux=self.load()` in `update`.
  """

  net: Net = "squeeze"
  path: str = ""
  heads: str = ""
  kinds: ClassVar[tuple[str, ...]] = ("image", "video")

  @property
  def name(self) -> str:
    """lpips_squeeze, lpips_vgg or lpips_alex."""
    return f"lpips_{self.net}"

  def each(self, x: Array, x_hat: Array, aux: Tree) -> Array:
    """[B,*S,C] twice in [-1,1] -> [B]; video: the mean over frames."""
    with jax.default_matmul_precision("float32"):  # not bfloat16 or TF32, the accelerators' default
      distance = LPIPS(self.net).distance(aux, x, x_hat)
    return distance.reshape(len(x), -1).mean(1)

  def load(self) -> Tree:
    """The weights from `path`; UserError where it is missing or of another network."""
    return LPIPS(self.net).load(self.path, self.heads)
