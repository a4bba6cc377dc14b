"""Heads: what stands at one position of a sequence, given what a network says of it.

The contract (class `Head`), of elements of `dim` numbers:
  out -> how many numbers the network gives for an element.
  read(latent) -> elements [B,*s,dim] of a Latent; write([B,*s,dim]) -> Latent.
  nll(given [...,out], x [...,dim]) -> [...] nats, or a bound on them, or a loss where `likelihood` is False.
  draw(keys [B], given [B,out], other [B,out] | None, guidance, temperature) -> [B,dim]. other: what the network says
    where nothing is known; None where no guidance is asked for.
`discrete`: it reads latent.codes, else latent.z. A head may have parameters; rng stream "prior".
"""

from latents.priors.heads.base import Head
from latents.priors.heads.diffusion import DiffusionHead
from latents.priors.heads.gaussian_mixture import GaussianMixture
from latents.priors.heads.logistic_mixture import LogisticMixture

__all__ = ["DiffusionHead", "GaussianMixture", "Head", "LogisticMixture"]
