"""A transformer autoencoder, and how many numbers its latent has. ViTok: Hansen-Estruch et al. 2025, arXiv:2501.09755.

Encoder and decoder are ViTs on patches, with a KL latent of c channels a patch between them. E, the numbers of a
latent, (side / patch)^2 c, says how well a picture is rebuilt, whatever the patch and the network's size; generation is
best at a middle E. Losses are L2, LPIPS (not at the tiny scale), KL and 0.1 SmoothL1; the second stage trains the
decoder alone against a GAN.

    latents run experiments/images/vitok.py
    latents run experiments/images/vitok.py --patch 8 --channels 16           the same E = 256 as 4 and 4

tiny: scikit-learn's digits at 32 px, S-S of width 96, patch 4, E = 256. paper: S-B/16 on ImageNet at 256 px, E = 4096
(16 channels); the GAN phase is --gan, weights and rates of arXiv:2501.09755's code (KL a mean, 1e-3).

Paper: reconstruction follows log E; generation is best near E = 4096 at 256 px
Shown: rebuilt without loss to the eye; samples are rough, twos, fives and sevens often broken
"""

import dataclasses
from typing import Literal

from experiments import imagenet
from latents.autoencoders import Autoencoder
from latents.backbones import DiT, dit_xl
from latents.bottlenecks import KL
from latents.data import Digits, Source, Tfds
from latents.declare import Evaluation, Experiment, Stage1, Stage2, Start
from latents.decoders import ViTDecoder
from latents.discriminators import PatchGAN
from latents.encoders import ViTEncoder
from latents.losses import L2, Adversarial, LPIPSLoss, Weight, conversions
from latents.optim import Adam
from latents.priors import FlowPrior


def experiment(
  scale: Literal["tiny", "paper"] = "tiny",
  patch: int | None = None,
  channels: int | None = None,
  gan: bool = False,
  data_dir: str | None = None,
) -> Experiment:
  """patch, channels: E = (side / patch)^2 channels. gan: the decoder is trained on against a discriminator."""
  tiny = scale == "tiny"
  data: Source = Digits(size=32) if tiny else Tfds("imagenet2012", data_dir, 256, labels=1000)
  patch, c = patch or (4 if tiny else 16), channels or (4 if tiny else 16)
  width, heads, dtype = (96, 4, "float32") if tiny else (768, 12, "bfloat16")
  size = {"width": width, "heads": heads, "patch": patch, "dtype": dtype}
  smooth = conversions.smooth_l1(0.1, beta=0.05)
  losses = {"l2": L2(), "smooth_l1": smooth, "kl": Weight(1e-4 if tiny else 1e-3)}
  rate = 1e-3 if tiny else 1e-4 * 1024 / 256
  first = Stage1(
    data=data,
    model=Autoencoder(
      encoder=ViTEncoder(depth=3 if tiny else 6, out=2 * c, **size),
      bottleneck=KL(dim=c, projected=False),
      decoder=ViTDecoder(depth=3 if tiny else 12, channels=data.shape[-1], **size),
    ),
    losses=losses if tiny else {**losses, "lpips": LPIPSLoss(weight=1.0, net="vgg")},
    optimizer=Adam(lr=rate, betas=(0.9, 0.95), decay=1e-4, warmup=50, schedule="cosine", clip=1.0, decays="kernels"),
    steps=1000 if tiny else 100_000,
    batch=32 if tiny else 1024,
    ema=0.99 if tiny else 0.9999,
  )
  judge = PatchGAN(ch=16, layers=2, norm="group") if tiny else PatchGAN()
  # The judge is trained alone first, then its push grows over 50k * 256 / batch steps, as in the paper's code; for how
  # long alone is our choice.
  alone = 20 if tiny else 2000
  term = Adversarial(
    discriminator=judge, weight=0.1, start=alone, ramp=0 if tiny else 50_000 * 256 // 1024, lead=alone, clamp=10.0,
    optimizer=Adam(lr=rate / 5, betas=(0.9, 0.95)),
  )  # fmt: skip
  last = dataclasses.replace(
    first,
    losses={**first.losses, "gan": term},
    start=(Start(stage=first),),
    trained=("decoder",),
    steps=150 if tiny else 100_000,
  )
  small = DiT(depth=6, width=128, heads=4, patch=2 if patch <= 4 else 1, classes=data.classes)
  made = Experiment(
    name="vitok",
    stage1=last if gan else first,
    stage2=Stage2(
      data=data,
      prior=FlowPrior(backbone=small if tiny else dit_xl(1, classes=1000, dtype=dtype), guidance=2.0),
      optimizer=Adam(lr=1e-3 if tiny else 1e-4, betas=(0.9, 0.95), warmup=50, schedule="cosine", clip=1.0),
      steps=1000 if tiny else 400_000,
      batch=32 if tiny else 256,
      ema=0.995 if tiny else 0.9999,
      cache=True,
    ),
    evaluation=Evaluation(images=297, samples=500, classifier=True, features=False),
  )
  return made if tiny else imagenet(made)
