"""A cascade: a prior of small pictures, and a diffusion decoder that draws the large one from the small one.

Cascaded diffusion (Ho et al. 2021, arXiv:2106.15282): here the autoencoder has a fixed encoder, the mean over cells,
and a generative decoder that is told the label; the base model is its prior. CDM has FID 4.88 on ImageNet-256 with
three models (32, 64, 256 px) and noise on what the upper ones are given.

    latents run experiments/decoders/cascade.py

tiny: digits of 32 px from 8 px, which a prior of 16 tokens draws. paper: 256 px from 64 px with ADM's width, and a
DiT-XL/4 on 64 px; without the noise on the condition.

Paper: FID 4.88 (ImageNet-256)
Shown: digits of 32 px drawn from 8 px with clean strokes; all of their class, sevens much alike
"""

import dataclasses
from typing import Literal

from experiments.images import digits, ldm_kl
from latents.autoencoders import Autoencoder
from latents.backbones import UNet
from latents.bottlenecks import NoBottleneck
from latents.declare import Experiment
from latents.decoders import FlowDecoder
from latents.encoders import Downsample
from latents.losses import Weight
from latents.optim import Adam


def experiment(scale: Literal["tiny", "paper"] = "tiny", data_dir: str | None = None) -> Experiment:
  tiny = scale == "tiny"
  base = digits.experiment() if tiny else ldm_kl.experiment("paper", data_dir=data_dir)
  assert base.stage2 is not None
  adam = base.stage1.optimizer
  assert isinstance(adam, Adam)
  channels, classes = base.stage1.data.shape[-1], base.stage2.prior.classes
  ch, mult, blocks, dtype = (16, (1, 2, 2), 1, "float32") if tiny else (192, (1, 1, 2, 2, 4, 4), 2, "bfloat16")
  model = Autoencoder(
    encoder=Downsample(factor=4),
    bottleneck=NoBottleneck(),
    decoder=FlowDecoder(
      backbone=UNet(ch=ch, mult=mult, blocks=blocks, classes=classes, out=channels, dtype=dtype),
      stride=4,
      channels=channels,
    ),
  )
  one = dataclasses.replace(
    base.stage1,
    model=model,
    losses={"flow": Weight(1.0)},
    steps=300 if tiny else 500_000,
    optimizer=dataclasses.replace(adam, eps=1e-8),
  )
  prior = base.stage2.prior
  two = dataclasses.replace(base.stage2, prior=prior.clone(backbone=prior.backbone.clone(patch=2 if tiny else 4)))
  return dataclasses.replace(base, name="cascade", stage1=one, stage2=two)
