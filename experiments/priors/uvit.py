"""U-ViT: a transformer with the long skips of a U-Net, and time and class as tokens. Bao et al. 2022, arXiv:2209.12152.

All that is known of an example is a token, and each block of the second half reads its mirror image of the first half
beside its own input; without the skips FID on CIFAR-10 is several times higher (figure 2). The noise is predicted on
the path of Stable Diffusion (1,000 betas, 0.00085 to 0.012, rising in the root).

    latents run experiments/priors/uvit.py

tiny: seven blocks of width 128 on the latents of `images/digits.py` (one stage 1 for both), the same loss and 25 steps
of DPM-Solver++; about four minutes of one CPU core. paper: U-ViT-H/2 (501M) on the latents of `images/ldm_kl.py`: 1,024
latents a step, AdamW 2e-4 with betas 0.99 and decay 0.03, 5k steps of warm-up, 50 steps of DPM-Solver, guidance 1.4.

Paper: FID 6.58 without, 2.29 with guidance (U-ViT-H/2, ImageNet-256, 500k steps)
Shown: digits of their class, strokes a little uneven; after 2,000 steps half of them were of no class.
"""

import dataclasses
from typing import Literal

from experiments.images import digits, ldm_kl
from latents.backbones import UViT, uvit_h
from latents.declare import Experiment
from latents.diffusion import Betas, DPMSolver2M, Process, Steps
from latents.optim import Adam
from latents.priors import FlowPrior


def experiment(scale: Literal["tiny", "paper"] = "tiny", data_dir: str | None = None) -> Experiment:
  tiny = scale == "tiny"
  base = digits.experiment("tiny") if tiny else ldm_kl.experiment("paper", data_dir=data_dir)
  assert base.stage2 is not None
  classes = base.stage1.data.classes
  prior = FlowPrior(
    backbone=UViT(7, 128, 4, classes=classes) if tiny else uvit_h(classes=classes, conv=False, dtype="bfloat16"),
    times=Steps(),
    shift=1.0,
    sampler=DPMSolver2M(25 if tiny else 50),
    guidance=2.5 if tiny else 1.4,
    process=Process(path=Betas(0.00085, 0.012, rise="root"), predict="noise"),
  )
  if tiny:
    two = dataclasses.replace(base.stage2, prior=prior, steps=3600)
  else:
    optimizer = Adam(lr=2e-4, betas=(0.99, 0.99), decay=0.03, warmup=5000)
    two = dataclasses.replace(base.stage2, prior=prior, optimizer=optimizer, steps=500_000, batch=1024)
  return dataclasses.replace(base, name="uvit", stage2=two)
