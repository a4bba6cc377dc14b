"""An autoencoder over a frozen autoencoder, and a prior on the latents of the second.

Composed tokenizers: FlexTok (Bachmann et al. 2025, arXiv:2502.13967) and TiTok's first phase train a second encoder on
the latents or codes of a frozen first one; the error of the first is a floor that the second cannot pass.

    latents run experiments/images/stacked.py

tiny: `digits`' f4c4 autoencoder (8x8x4) under a second of stride 2 (4x4x4, TSR 16 in all), a prior on its 16 vectors.
paper: `ldm_kl`'s f8c4 under a second of stride 4: f32c16 in all; no paper has it.

Paper: no paper has just this
Shown: 29.06 dB is the floor that the first sets; samples are digits of their class, those of a class much alike
"""

import dataclasses
from typing import Literal

from experiments.images import digits, ldm_kl
from latents.autoencoders import Autoencoder, Stacked
from latents.bottlenecks import KL
from latents.declare import Experiment, Start
from latents.decoders import ConvDecoder
from latents.encoders import ConvEncoder
from latents.losses import L2, Weight
from latents.optim import Adam


def experiment(scale: Literal["tiny", "paper"] = "tiny", kl: float = 1e-5, data_dir: str | None = None) -> Experiment:
  """kl: weight of the second autoencoder's mean KL."""
  tiny = scale == "tiny"
  base = digits.experiment() if tiny else ldm_kl.experiment("paper", data_dir=data_dir)
  assert base.stage2 is not None
  adam = base.stage1.optimizer
  assert isinstance(adam, Adam)
  ch, mult, dim = (32, (1, 2), 4) if tiny else (128, (1, 2, 4), 16)
  outer = Autoencoder(
    encoder=ConvEncoder(ch=ch, mult=mult, blocks=1 if tiny else 2, out=2 * dim, mid_attention=not tiny),
    bottleneck=KL(dim=dim),
    decoder=ConvDecoder(ch=ch, mult=mult, blocks=1 if tiny else 2, channels=4, mid_attention=not tiny),
  )
  one = dataclasses.replace(
    base.stage1,
    model=Stacked(inner=base.stage1.model.clone(), outer=outer),
    losses={"l2": L2(), "kl": Weight(kl)},
    optimizer=dataclasses.replace(adam, eps=1e-8),
    start=(Start(stage=base.stage1, into="inner"),),
    trained=("outer",),
    steps=400 if tiny else base.stage1.steps,
  )
  prior = base.stage2.prior
  two = dataclasses.replace(base.stage2, prior=prior.clone(backbone=prior.backbone.clone(patch=1)))
  return dataclasses.replace(base, name="stacked", stage1=one, stage2=two)
