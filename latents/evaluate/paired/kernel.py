"""The kernel distance between reconstructions and their originals, from sums."""

import dataclasses
from typing import ClassVar

import jax.numpy as jnp
import numpy as np

from latents.evaluate.paired.base import Metric
from latents.evaluate.samples.features import EfficientNetFeatures
from latents.evaluate.sums import Tree, add, sum_kept, total, zeros
from latents.pretrained.efficientnet import FEATURES
from latents.types import Array


@dataclasses.dataclass(frozen=True)
class PairedKernel(Metric):
  """{"kernel2_efficientnet_lite0"}: squared MMD between pictures and their reconstructions on pooled EfficientNet-Lite0
  features f of F numbers, k(a, b) = (f(a).f(b) / F + 1)^2 (Gretton et al. 2012, JMLR 13, lemma 6).

  Quadratic where `KernelDistance` is cubic (Binkowski et al. 2018), so that it comes from sums of f and f f^T: the two
  do not compare. Blur moves it where PSNR is blind. A picture is never compared with itself or its own reconstruction,
  so the estimate has no bias though the two sets are paired; it may be below 0.
  side: smaller pictures are enlarged to it. Needs `aux=self.load()` in `update`.
  """

  side: int = 64
  kinds: ClassVar[tuple[str, ...]] = ("image",)

  def init(self) -> Tree:
    """Sums of f(x) - f(x_hat), of f f^T of both, and of what a picture has with itself."""
    return {"first": zeros(FEATURES), "second": zeros(FEATURES, FEATURES), "own": zeros(), "count": zeros()}

  def update(self, acc: Tree, x: Array, x_hat: Array, mask: Array, *, aux: Tree = None) -> Tree:
    """See `Metric`."""
    see = EfficientNetFeatures(self.side)
    keep = mask[:, None]
    a, b = (jnp.where(keep, see(aux, v.astype(jnp.float32)), 0.0) / np.sqrt(FEATURES) for v in (x, x_hat))
    # a a^T - b b^T as a product of differences and sums: small where both are alike, and no digits are lost
    less, more = a - b, 0.5 * (a + b)
    half = jnp.einsum("ni,nj->ij", less, more, precision="highest")
    aa, bb, ab = ((u * v).sum(1) for u, v in ((a, a), (b, b), (a, b)))
    own = aa**2 + bb**2 - 2.0 * ab**2 + 2.0 * jnp.square(less).sum(1)
    new = {"first": less.sum(0), "second": half + half.T, "own": sum_kept(own, mask), "count": mask.sum()}
    return {name: add(acc[name], value.astype(jnp.float32)) for name, value in new.items()}

  def result(self, acc: Tree) -> dict[str, float]:
    """See the class; nan below two pictures."""
    n = float(total(acc["count"]))
    whole = np.square(total(acc["second"])).sum() + 2.0 * np.square(total(acc["first"])).sum() - total(acc["own"])
    return {"kernel2_efficientnet_lite0": float(whole / (n * (n - 1))) if n > 1 else float("nan")}

  def load(self) -> Tree:
    """The network's weights; UserError that says what to install."""
    return EfficientNetFeatures(self.side).load()
