"""Denoising diffusion with a learned variance, sampled step by step. DDPM: Ho, Jain, Abbeel 2020, arXiv:2006.11239.

The noise is predicted on DDPM's path (1,000 betas from 1e-4 to 0.02); beside it the variance of each reverse step is
learned (iDDPM: Nichol & Dhariwal 2021, arXiv:2102.09672: L_simple + 0.001 L_vlb), so that 50 strided steps of the chain
do. DDPM has FID 3.17 on CIFAR-10 with 1,000 steps; latent diffusion puts the same on latents (Rombach et al. 2022,
arXiv:2112.10752: LDM-8 has 15.8 on ImageNet-256), and DiT (arXiv:2212.09748) trains with this very loss.

    latents run experiments/priors/ddpm.py

tiny: the DiT of `images/digits.py` on its latents (one stage 1 for both): there flow matching, here DDPM; about six
minutes of one CPU core. It needs four times the 980 steps of flow matching: at 980 it has learned strokes and hardly
the class (agreement 0.20), at 4,000 the class (1.00), both with 50 steps of the chain. paper: LDM-8's U-Net (256
channels, 1, 2, 4, attention at all levels) and its betas on the
latents of `images/ldm_kl.py`; the class is added to the time, LDM-8 attends to it; batch, rate and length are those of
stage 2 there, not LDM's.

Paper: FID 3.17 (CIFAR-10), 15.8 (LDM-8, ImageNet-256)
Shown: samples are digits of the class that was asked for, after four times the steps that flow matching needs
"""

import dataclasses
from typing import Literal

import flax.linen as nn

from experiments.images import digits, ldm_kl
from latents.backbones import DiT, UNet
from latents.declare import Experiment, Stage2
from latents.diffusion import DDPM, Betas, Process, Steps, Strided
from latents.optim import Adam
from latents.priors import FlowPrior


def experiment(scale: Literal["tiny", "paper"] = "tiny", data_dir: str | None = None) -> Experiment:
  tiny = scale == "tiny"
  base = digits.experiment("tiny") if tiny else ldm_kl.experiment("paper", data_dir=data_dir)
  data, dim = base.stage1.data, 4
  if tiny:
    backbone, betas = DiT(6, 128, 4, classes=data.classes, out=2 * dim), Betas()
  else:
    backbone = UNet(
      ch=256,
      mult=(1, 2, 4),
      attention=(0, 1, 2),
      heads=8,
      film=False,
      classes=data.classes,
      out=2 * dim,
      dtype="bfloat16",
    )
    betas = Betas(0.0015, 0.0195, rise="root")
  prior = chain(backbone, betas, DDPM(50 if tiny else 250, variance="learned"), 2.5 if tiny else 1.5)
  stage2 = Stage2(
    data=data,
    prior=prior,
    optimizer=Adam(lr=1e-3, betas=(0.9, 0.95), warmup=50, schedule="cosine", clip=1.0) if tiny else Adam(lr=1e-4),
    steps=4000 if tiny else 400_000,
    batch=32 if tiny else 256,
    ema=0.995 if tiny else 0.9999,
    cache=True,
  )
  return dataclasses.replace(base, name="ddpm", stage2=stage2)


def chain(backbone: nn.Module, betas: Betas, sampler: DDPM, guidance: float) -> FlowPrior:
  """The prior that predicts the noise of a chain of 1,000 steps, and its learned variance."""
  return FlowPrior(
    backbone=backbone,
    times=Steps(),
    shift=1.0,
    sampler=sampler,
    guidance=guidance,
    process=Process(path=betas, predict="noise", variance="learned"),
    grid=Strided(),
  )
