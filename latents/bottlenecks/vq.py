"""Vector quantisation whose codebook is learned by gradient (VQ-VAE, van den Oord et al. 2017, arXiv:1711.00937)."""

from typing import Literal

import jax

from latents.bottlenecks.base import check_field
from latents.bottlenecks.nearest import Gradient, NearestCode, distance, random_rows, unit
from latents.types import Array, Terms


class VQ(NearestCode):
  """[B,*s,E] -> z [B,*s,D], codes [B,*s] in [0,V): the nearest row e of a codebook [V,D], which is a parameter.

  terms: {"vq"}: eq. 3 without its reconstruction, |sg(x) - e|^2 + beta |x - sg(e)|^2, both as means over all elements
    (the paper's sum over D is D times as much). Only rows that were used get a gradient, and only from the first.
  beta: the paper's 0.25. legacy: True = beta |sg(x) - e|^2 + |x - sg(e)|^2, the order of taming-transformers' VQGAN and
    of diffusers' VQModel, whose released models were trained so.
  normalise: "codes" = x and the rows are scaled to length 1 first, so that the nearest is the one of the largest
    cosine, and decoder and losses see unit vectors (ViT-VQGAN, arXiv:2110.04627, section 3.2); "search" = only
    for the search, while decoder and losses see them as they are (DAC, arXiv:2306.06546, as released); "none".
  project, gradient, logs: see `NearestCode`.
  """

  project: bool = True
  gradient: Gradient = "straight"  # pyright: ignore[reportIncompatibleVariableOverride]
  beta: float = 0.25
  legacy: bool = False
  normalise: Literal["none", "codes", "search"] = "none"

  def setup(self) -> None:
    """Makes the projection and the codebook."""
    super().setup()
    check_field(self, "beta")
    self.rows = self.param("codebook", random_rows, (self.vocab, self.dim))

  def table(self) -> Array:
    """The codebook [V,D]."""
    return unit(self.rows) if self.normalise == "codes" else self.rows

  def before(self, h: Array) -> Array:
    """[B,*s,E] -> what is looked up [B,*s,D] float32."""
    x = super().before(h)
    return unit(x) if self.normalise == "codes" else x

  def compared(self, x: Array) -> Array:
    """[..,D] -> unit vectors, where the search alone sees them so."""
    return unit(x) if self.normalise == "search" else x

  def snap(self, z: Array) -> Array:
    """z [B,*s,D] -> the nearest rows of the codebook, same shape."""
    return super().snap(unit(z) if self.normalise == "codes" else z)

  def losses(self, x: Array, q: Array, weight: Array | None = None) -> Terms:
    """x, q [B,*s,D], weight [B,*s] or None -> {"vq"}."""
    codebook = distance(jax.lax.stop_gradient(x), q, weight)
    commit = distance(x, jax.lax.stop_gradient(q), weight)
    return {"vq": self.beta * codebook + commit if self.legacy else codebook + self.beta * commit}
