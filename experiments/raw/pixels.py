"""The single-stage baseline: the prior of `digits` on pixels, through the identity autoencoder (TSR 1).

What latents buy is the difference to `digits`: the same prior, optimiser, steps and data. Patch 8 gives
it the same 16 tokens (Dieleman 2025, "Generative modelling in latent space", on pixels and latents).

    latents run experiments/raw/pixels.py

Paper: no paper has it.
Shown: parts of digits that do not fit together: what latents buy is the difference to `digits`.
"""

import dataclasses
from typing import Literal

from experiments.images import digits
from latents.autoencoders import Autoencoder
from latents.bottlenecks import NoBottleneck
from latents.declare import Experiment
from latents.decoders import IdentityDecoder
from latents.encoders import IdentityEncoder


def experiment(scale: Literal["tiny", "paper"] = "tiny", patch: int = 8) -> Experiment:
  base = digits.experiment(scale)
  assert base.stage2 is not None
  prior = base.stage2.prior
  prior = prior.clone(backbone=prior.backbone.clone(patch=patch))
  model = Autoencoder(encoder=IdentityEncoder(), bottleneck=NoBottleneck(), decoder=IdentityDecoder())
  return dataclasses.replace(
    base,
    name="pixels",
    stage1=dataclasses.replace(base.stage1, model=model, losses={}, steps=0),
    stage2=dataclasses.replace(base.stage2, prior=prior, cache=False),
  )
