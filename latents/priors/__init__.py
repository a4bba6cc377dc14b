"""Priors: models of the latents of a frozen autoencoder (stage 2).

Contract: `loss(latent, cond [B] int32 | None, *, train) -> Terms` and `sample(cond, *, shape, guidance=None,
count=1) -> Latent`; rng streams "prior" and "dropout"; without `train` nothing is dropped, the rest is drawn as in
training. `nll(latent, cond) -> [B]` nats, where the attribute `likelihood` says so. A prior reads latent.z,
normalised to mean 0 and standard deviation 1 per channel, or latent.codes (class attribute `discrete`). Labels are
dropped here in training.
"""

from latents.priors.autoregressive import AutoregressivePrior
from latents.priors.base import Prior
from latents.priors.chain import ChainPrior
from latents.priors.consistency import ConsistencyDistillation, ConsistencyTraining
from latents.priors.distance import PseudoHuber, Squared
from latents.priors.flow import FlowPrior
from latents.priors.intervals import Doubling, Rising
from latents.priors.masked import MaskedPrior
from latents.priors.masked_vectors import MAR
from latents.priors.mean_flow import MeanFlow
from latents.priors.multi_scale import MultiScaleFlow
from latents.priors.next_scale import NextScale
from latents.priors.pixel_flow import PixelFlow
from latents.priors.progressive import ProgressiveDistillation
from latents.priors.shortcut import Shortcut
from latents.priors.uncertain import UncertainFlow
from latents.priors.vectors import AutoregressiveVectors

__all__ = [
  "MAR", "AutoregressivePrior", "AutoregressiveVectors", "ChainPrior", "ConsistencyDistillation", "ConsistencyTraining",
  "Doubling", "FlowPrior", "MaskedPrior", "MeanFlow", "MultiScaleFlow", "NextScale", "PixelFlow", "Prior",
  "ProgressiveDistillation", "PseudoHuber", "Rising", "Shortcut", "Squared", "UncertainFlow",
]  # fmt: skip
