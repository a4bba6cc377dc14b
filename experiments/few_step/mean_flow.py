"""One step by average velocities, without a teacher. MeanFlow: Geng, Deng, Bai, Kolter, He 2025, arXiv:2505.13447.

The network gives the average velocity between two times, and is trained by an identity of it and its derivative along
the flow, which one forward product of its Jacobian gives. Guidance is part of the field that is averaged (equations 19
to 21), so that a guided sample costs one pass too.

    latents run experiments/few_step/mean_flow.py
    latents run experiments/few_step/mean_flow.py --stage2.prior.sampler.steps 2

tiny: on the latents of `images/digits.py`, beginning with the weights of its prior, as from nothing the average needs
more than minutes; half of a batch has r = t, guidance 2.5, times told as 10 t; class agreement 0.996 in one step,
0.988 in two.
paper: SiT-XL/2 on the latents of `images/ldm_kl.py` from random weights, 240 epochs of ImageNet, a quarter of a batch
with r < t, omega 0.2, kappa 0.92, times up to 0.75 guided (the released configurations); float32, as the derivative
asks for its digits.

Paper: ImageNet 256, one step FID 3.43 (XL/2), 6.17 (B/2); two steps 2.93 (XL/2)
Shown: one step gives digits of their class; strokes a little blurred, less varied than the data.
"""

import dataclasses
from typing import Literal

from experiments.few_step import flow
from experiments.images import digits, ldm_kl
from latents.backbones import dit_xl
from latents.declare import Experiment, Start
from latents.diffusion import Euler
from latents.optim import Adam
from latents.priors import MeanFlow


def experiment(
  scale: Literal["tiny", "paper"] = "tiny", omega: float | None = None, data_dir: str | None = None
) -> Experiment:
  """omega: share of the random pair's velocity in the guided one; the guidance is omega / (1 - kappa)."""
  base = digits.experiment("tiny") if scale == "tiny" else ldm_kl.experiment("paper", data_dir=data_dir)
  stage, prior = flow(base)
  if scale == "tiny":
    stage2 = dataclasses.replace(
      stage,
      prior=MeanFlow(
        backbone=prior.backbone.clone(),
        rate=0.01,
        equal=0.5,
        omega=omega or 1.25,
        kappa=0.5,
        label_drop=0.1,
        sampler=Euler(1),
      ),
      start=(Start(stage=stage, source="backbone", into="backbone"),),
      optimizer=Adam(lr=1e-3, betas=(0.9, 0.95), warmup=20, schedule="cosine", clip=1.0),
      steps=500,
      ema=0.99,
    )
  else:
    stage2 = dataclasses.replace(
      stage,
      prior=MeanFlow(
        backbone=dit_xl(2, classes=base.stage1.data.classes),
        omega=omega or 0.2,
        kappa=0.92,
        guided=(0.0, 0.75),
        label_drop=0.1,
        sampler=Euler(1),
      ),
      optimizer=Adam(lr=1e-4, betas=(0.9, 0.95)),
      steps=1_200_000,
      batch=256,
    )
  return dataclasses.replace(base, name="mean_flow", stage2=stage2)
