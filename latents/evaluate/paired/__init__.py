"""Measures of reconstructions beside their originals.

Contract (`base.Metric`): `acc = init()`, `acc = update(acc, x, x_hat, mask, aux=load())` inside jit, `result(acc)` on
the host. `fits(kind, shape)` says which signals it is for.
"""

from latents.evaluate.paired.base import MeanMetric, Metric
from latents.evaluate.paired.energy import Bands, Energy
from latents.evaluate.paired.kernel import PairedKernel
from latents.evaluate.paired.log_mel import LogMel
from latents.evaluate.paired.lpips import LPIPSMetric
from latents.evaluate.paired.psnr import PSNR
from latents.evaluate.paired.ssim import SSIM
from latents.evaluate.paired.tokens import TokenAccuracy

__all__ = [
  "PSNR", "SSIM", "Bands", "Energy", "LPIPSMetric", "LogMel", "MeanMetric", "Metric", "PairedKernel", "TokenAccuracy",
]  # fmt: skip
