"""Latent diffusion's U-Net, which attends to the class. Rombach et al. 2022, arXiv:2112.10752, section 3.3, table 12.

Spatial transformers at all but the finest level: self-attention, cross-attention to the condition's tokens, GEGLU. The
condition of ImageNet is one token of 512 numbers, learned for each class; a 1,001st stands for no class. The noise is
predicted on LDM's path (1,000 betas from 0.0015 to 0.0195, even in their roots).

    latents run experiments/priors/ldm_unet.py
    latents run experiments/priors/ldm_unet.py --scale paper --data-dir DIR --stage1.losses.lpips.path vgg.pth

tiny: a U-Net of two levels on the latents of `images/digits.py` (one stage 1 for both), 20 steps of DPM-Solver++.
paper: LDM-4, 400,920,579 parameters and the class tokens, on the vectors of `codes/ldm_vq.py` as they are; rate, batch
and length are the authors', and so are 250 steps of DDIM with eta 1, which are those of DDPM.

Paper: FID 10.56, 3.60 with guidance 1.5 (ImageNet-256)
Shown: sharp digits, each of the class asked for, nearly as varied as the data (0.23 apart, real ones 0.26).
"""

import dataclasses
from typing import Literal

from experiments.codes import ldm_vq
from experiments.images import digits
from latents.backbones import UNet, ldm4
from latents.declare import Experiment, Stage2
from latents.diffusion import DDPM, Betas, DPMSolver2M, Process, Steps, Strided
from latents.optim import Adam
from latents.priors import FlowPrior


def experiment(
  scale: Literal["tiny", "paper"] = "tiny", data: str | None = None, data_dir: str | None = None
) -> Experiment:
  """data, data_dir: as of `codes/ldm_vq.py` (paper)."""
  tiny = scale == "tiny"
  base = digits.experiment("tiny") if tiny else ldm_vq.experiment("paper", data=data, data_dir=data_dir)
  one = base.stage1 if tiny else dataclasses.replace(base.stage1, normalise="none")
  small = {"ch": 48, "mult": (1, 2), "blocks": 1, "attention": (0, 1), "head": 24, "context": 64}
  fields = {"film": False, "depth": 1, "resample": "both", "classes": one.data.classes}
  prior = FlowPrior(
    backbone=UNet(**small, **fields) if tiny else ldm4(classes=one.data.classes, dtype="bfloat16"),
    times=Steps(),
    shift=1.0,
    sampler=DPMSolver2M(20) if tiny else DDPM(250, variance="small"),
    guidance=2.5 if tiny else 1.5,
    process=Process(path=Betas(0.0015, 0.0195, rise="root"), predict="noise"),
    grid=Strided(),
  )
  stage2 = Stage2(
    data=one.data,
    prior=prior,
    optimizer=Adam(lr=1e-3, betas=(0.9, 0.99), warmup=50, schedule="cosine", clip=1.0) if tiny else Adam(lr=1e-4),
    steps=1600 if tiny else 178_000,
    batch=32 if tiny else 1200,
    ema=0.995 if tiny else 0.9999,
    cache=True,
  )
  return dataclasses.replace(base, name="ldm_unet", stage1=one, stage2=stage2)
