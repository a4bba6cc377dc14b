"""Measures of reconstructions, samples and latents: one a file.

The contract of a paired metric (`base.Metric`): `acc = init()`, `acc = update(acc, x, x_hat, mask,
aux=load())` inside jit, `result(acc)` on the host; accumulators are sums, so shards and hosts are added
leaf by leaf and padding (mask False) counts nothing. `kinds` says which signals it is for. Distances
between distributions take features (`features.collect`) and are named after the network that made them;
each value carries its `Protocol`. Capacities take latents.
"""

from latents.evaluate.agreement import agreement
from latents.evaluate.base import MeanMetric, Metric
from latents.evaluate.capacity import CodeCapacity, GaussianCapacity, tsr
from latents.evaluate.distribution import Measured, compare
from latents.evaluate.energy import Energy
from latents.evaluate.features import EfficientNetFeatures, Protocol, collect
from latents.evaluate.frechet import Moments, frechet
from latents.evaluate.kernel import kernel_distance, mmd2
from latents.evaluate.lpips import LPIPSMetric
from latents.evaluate.novelty import nearest_distances, novelty
from latents.evaluate.pca import pca_picture
from latents.evaluate.precision_recall import precision_recall
from latents.evaluate.psnr import PSNR
from latents.evaluate.ssim import SSIM
from latents.evaluate.tokens import TokenAccuracy
from latents.media.log_mel import log_mel

__all__ = [
  "PSNR",
  "SSIM",
  "CodeCapacity",
  "EfficientNetFeatures",
  "Energy",
  "GaussianCapacity",
  "LPIPSMetric",
  "MeanMetric",
  "Measured",
  "Metric",
  "Moments",
  "Protocol",
  "TokenAccuracy",
  "agreement",
  "collect",
  "compare",
  "frechet",
  "kernel_distance",
  "log_mel",
  "mmd2",
  "nearest_distances",
  "novelty",
  "pca_picture",
  "precision_recall",
  "tsr",
]
