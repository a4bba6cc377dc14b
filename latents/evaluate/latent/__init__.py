"""Measures of latents: their rate, and what makes them easy or hard to model.

Contract (`base.LatentMetric`): `acc = init(layout)`, `acc = update(acc, latent, held)` inside jit over held-out
examples, `result(acc, layout)` on the host; `fits(layout)` says which latents it is for.
"""

from latents.evaluate.latent.base import Held, LatentMetric, Layout
from latents.evaluate.latent.capacity import GaussianCapacity, tsr
from latents.evaluate.latent.channels import Channels
from latents.evaluate.latent.codes import CodeCapacity
from latents.evaluate.latent.dimension import EffectiveDimension
from latents.evaluate.latent.kurtosis import Kurtosis
from latents.evaluate.latent.moments import TokenMetric
from latents.evaluate.latent.numbers import Numbers
from latents.evaluate.latent.outliers import Outliers
from latents.evaluate.latent.pca import pca_picture
from latents.evaluate.latent.scale import Scale
from latents.evaluate.latent.smoothness import Smoothness
from latents.evaluate.latent.spectrum import Spectrum

__all__ = [
  "Channels",
  "CodeCapacity",
  "EffectiveDimension",
  "GaussianCapacity",
  "Held",
  "Kurtosis",
  "LatentMetric",
  "Layout",
  "Numbers",
  "Outliers",
  "Scale",
  "Smoothness",
  "Spectrum",
  "TokenMetric",
  "pca_picture",
  "tsr",
]
