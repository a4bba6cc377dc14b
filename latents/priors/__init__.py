"""Priors: models of the latents of a frozen autoencoder (stage 2).

Contract: `loss(latent, cond [B] int32 | None, *, train) -> Terms` and `sample(cond, *, shape, guidance=None,
count=1) -> Latent`; rng streams "prior" and "dropout"; without `train` nothing is dropped, the rest is drawn as in
training. `nll(latent, cond) -> [B]` nats, where the attribute `likelihood` says so. A prior reads latent.z,
normalised to mean 0 and standard deviation 1 per channel, or latent.codes (class attribute `discrete`). Labels are
dropped here in training.
"""

from latents.priors.autoregressive import AutoregressivePrior
from latents.priors.base import Prior
from latents.priors.consistency import ConsistencyDistillation
from latents.priors.flow import FlowPrior

__all__ = ["AutoregressivePrior", "ConsistencyDistillation", "FlowPrior", "Prior"]
