"""Preconditioning, a grid of noise levels and Heun's steps. EDM: Karras, Aittala, Aila, Laine 2022, arXiv:2206.00364.

Noise sigma = t is added to the data; what the network F gives is mixed with its input, c_skip and c_out, so that input
and target have one size at every level. Levels of training are log-normal, and sampling takes 18 steps on a grid that
is even in sigma^(1/7), with two evaluations in each but the last: 35. Samples have FID 1.79 on CIFAR-10 (with
classes) and, with churn, 1.36 on ImageNet-64.

    latents run experiments/priors/edm.py

The paper's data have a deviation of 0.5. Latents and pixels here have 1: every sigma is twice the paper's, which is the
same process (F is told ln(sigma) / 4: another constant in it).

tiny: the DiT of `images/digits.py` on its latents (one stage 1 for both), with EDM2's levels for latents; three minutes
of one CPU core. Class agreement 1.00 (0.56 with those for pixels, guidance 2 and 980 steps). paper: pixels of
ImageNet-64 with ADM's U-Net (296M), batch and length as there, 256 steps with churn.

Paper: FID 1.79 (CIFAR-10), 1.36 (ImageNet-64)
Shown: sharp digits, each of the class asked for; 18 steps of Heun; zeros resemble each other at guidance 3.5.
"""

import dataclasses
import math
from typing import Literal

from experiments.images import digits, ldm_kl
from latents.autoencoders import Autoencoder
from latents.backbones import DiT, UNet
from latents.bottlenecks import NoBottleneck
from latents.declare import Experiment, Stage1, Stage2
from latents.decoders import IdentityDecoder
from latents.diffusion import Exploding, Heun, Karras, LogNormal, Process, StochasticHeun
from latents.encoders import IdentityEncoder
from latents.optim import Adam
from latents.priors import FlowPrior

UNIT = 2.0  # sigma for data of deviation 1, over that for 0.5
MOST = 80 * UNIT
PROCESS = Process(Exploding(MOST), "edm", data_std=0.5 * UNIT)
GRID = Karras(7.0, 0.002 * UNIT, MOST)


def levels(mean: float, std: float) -> LogNormal:
  """The paper's levels, ln sigma ~ N(mean, std^2), in the units here."""
  return LogNormal(mean + math.log(UNIT), std, MOST)


def experiment(scale: Literal["tiny", "paper"] = "tiny", data_dir: str | None = None) -> Experiment:
  tiny = scale == "tiny"
  base = digits.experiment("tiny") if tiny else ldm_kl.experiment("paper", size=64, data_dir=data_dir)
  data, one = base.stage1.data, base.stage1
  if tiny:
    backbone = DiT(6, 128, 4, classes=data.classes)
  else:
    model = Autoencoder(encoder=IdentityEncoder(), bottleneck=NoBottleneck(), decoder=IdentityDecoder())
    one = Stage1(data=data, model=model, losses={}, steps=0, batch=256)
    backbone = UNet(
      ch=192,
      mult=(1, 2, 3, 4),
      blocks=3,
      attention=(1, 2, 3),
      head=64,
      resample="block",
      classes=data.classes,
      dropout=0.1,
      dtype="bfloat16",
    )
  prior = FlowPrior(
    backbone=backbone,
    times=levels(-0.4, 1.0) if tiny else levels(-1.2, 1.2),
    shift=1.0,
    sampler=Heun(18) if tiny else StochasticHeun(256),
    guidance=3.5 if tiny else 1.0,
    process=PROCESS,
    grid=GRID,
  )
  stage2 = Stage2(
    data=data,
    prior=prior,
    optimizer=Adam(lr=1e-3, betas=(0.9, 0.95), warmup=50, schedule="cosine", clip=1.0)
    if tiny
    else Adam(lr=1e-4, warmup=2441),
    steps=1200 if tiny else 610_000,
    batch=32 if tiny else 4096,
    ema=0.995 if tiny else 0.9999,
    cache=tiny,
  )
  return dataclasses.replace(base, name="edm", stage1=one, stage2=stage2)
