"""Pixels from coarse to fine in one flow. PixelFlow: Chen, Ge, Zhang, Sun, Luo 2025, arXiv:2504.07963.

No autoencoder, no cascade of models: the flow begins with noise at an eighth of the resolution, and on its way the
signal is doubled three times, with noise of its own that makes the noise white again. One transformer sees all four
resolutions, and is told which. FID 1.98 on ImageNet-256.

    latents run experiments/raw/pixelflow.py

tiny: digits of 8, 16 and 32 px, patches of 4 and four blocks of width 128 (compiling them three times takes a
minute); under three minutes of one CPU core. After 980 steps class agreement is 0.79, after these 0.99.
paper: 32 to 256 px, patches of 4, 28 blocks of width 1152 (677 million numbers).

Paper: FID 1.98 (ImageNet-256)
Shown: digits of their class, coarse to fine; the last doubling leaves ragged edges.
"""

import dataclasses
from typing import Literal

from experiments.images import digits, ldm_kl
from latents.autoencoders import Autoencoder
from latents.backbones import DiT, dit_xl
from latents.bottlenecks import NoBottleneck
from latents.declare import Experiment, Stage1, Stage2
from latents.decoders import IdentityDecoder
from latents.diffusion import Euler
from latents.encoders import IdentityEncoder
from latents.optim import Adam
from latents.priors import PixelFlow


def experiment(scale: Literal["tiny", "paper"] = "tiny", data_dir: str | None = None) -> Experiment:
  tiny = scale == "tiny"
  base = digits.experiment("tiny") if tiny else ldm_kl.experiment("paper", data_dir=data_dir)
  data = base.stage1.data
  if tiny:
    backbone = DiT(4, 128, 4, 4, classes=data.classes, rope=True)
  else:
    backbone = dit_xl(4, classes=data.classes, rope=True, dtype="bfloat16")
  prior = PixelFlow(
    backbone=backbone,
    stages=3 if tiny else 4,
    sampler=Euler(10 if tiny else 30),
    guidance=2.5 if tiny else 2.4,
  )
  model = Autoencoder(encoder=IdentityEncoder(), bottleneck=NoBottleneck(), decoder=IdentityDecoder())
  one = Stage1(data=data, model=model, losses={}, steps=0, batch=32)
  stage2 = Stage2(
    data=data,
    prior=prior,
    optimizer=Adam(lr=1e-3, betas=(0.9, 0.95), warmup=50, schedule="cosine", clip=1.0)
    if tiny
    else Adam(lr=1e-4, betas=(0.9, 0.95)),
    steps=1600 if tiny else 400_000,
    batch=32 if tiny else 256,
    ema=0.995 if tiny else 0.9999,
  )
  return dataclasses.replace(base, name="pixelflow", stage1=one, stage2=stage2)
