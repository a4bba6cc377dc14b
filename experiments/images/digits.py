"""KL autoencoder and flow-matching transformer on scikit-learn's 1,797 real digits: both stages in minutes.

The small version of latent diffusion (Rombach et al. 2022, arXiv:2112.10752) with a DiT (Peebles & Xie
2022, arXiv:2212.09748) trained by flow matching (Lipman et al. 2022, arXiv:2210.02747).

    latents run experiments/images/digits.py

tiny: f4 c4 autoencoder (8x8x4 latents of 32x32x1 digits), DiT 6x128 patch 2; 2 CPU cores, under four
minutes. paper: the same with widths and lengths for a GPU; no paper has it, it is a fuller reference.
Measured values stand in the README's table.

Paper: no paper has it.
Shown: samples are digits of the class that was asked for.
"""

from typing import Literal

from latents.autoencoders import Autoencoder
from latents.backbones import DiT
from latents.bottlenecks import KL
from latents.data import Digits
from latents.declare import Evaluation, Experiment, Stage1, Stage2
from latents.decoders import ConvDecoder
from latents.diffusion import Euler
from latents.encoders import ConvEncoder
from latents.losses import L2, Weight
from latents.optim import Adam
from latents.priors import FlowPrior


def experiment(scale: Literal["tiny", "paper"] = "tiny", kl: float = 1e-6, size: int = 32) -> Experiment:
  tiny = scale == "tiny"
  data = Digits(size=size)
  ch, blocks, mult = (16, 1, (1, 2, 2)) if tiny else (64, 2, (1, 2, 2))
  model = Autoencoder(
    encoder=ConvEncoder(ch=ch, mult=mult, blocks=blocks, out=8, mid_attention=False),
    bottleneck=KL(dim=4),
    decoder=ConvDecoder(ch=ch, mult=mult, blocks=blocks, channels=1, mid_attention=False),
  )
  depth, width, heads = (6, 128, 4) if tiny else (12, 384, 6)
  prior = FlowPrior(
    backbone=DiT(depth=depth, width=width, heads=heads, patch=2, classes=data.classes),
    sampler=Euler(30),
    guidance=3.5,
  )
  return Experiment(
    name="digits",
    stage1=Stage1(
      data=data,
      model=model,
      losses={"l2": L2(), "kl": Weight(kl)},
      optimizer=Adam(lr=2e-3, warmup=20, schedule="cosine", clip=1.0),
      steps=120 if tiny else 5_000,
      batch=32 if tiny else 128,
      ema=0.99,
    ),
    stage2=Stage2(
      data=data,
      prior=prior,
      optimizer=Adam(lr=1e-3, betas=(0.9, 0.95), warmup=50, schedule="cosine", clip=1.0),
      steps=980 if tiny else 20_000,
      batch=32 if tiny else 256,
      ema=0.995 if tiny else 0.999,
      cache=True,
    ),
    evaluation=Evaluation(images=297, samples=500, classifier=True, features=False),
  )
