"""One network for any number of steps. Shortcut models: Frans, Hafner, Levine, Abbeel 2024, arXiv:2410.12557.

The network is told the length of the step that it is to make, and learns from itself that a long one is two short ones;
three quarters of a batch are flow matching, the step of length 0.

    latents run experiments/few_step/shortcut.py
    latents run experiments/few_step/shortcut.py --stage2.prior.sampler.steps 2

tiny: on the latents of `images/digits.py`, beginning with the weights of its prior; 32 steps at the finest, these
guided where others learn from them, half of a batch learns steps; class agreement 0.98 in one step and in two. paper:
DiT-XL/2 on the latents of `images/ldm_kl.py` from random weights, 128 steps at the finest, a quarter of a batch,
guidance 1.5 at the finest steps.

Paper: ImageNet 256, FID 10.6 in one step, 7.8 in four, 3.8 in 128 (XL/2); 40.3, 28.3, 15.5 (B/2)
Shown: one step gives digits of their class; some 8s and 5s smudged.
"""

import dataclasses
from typing import Literal

from experiments.few_step import flow
from experiments.images import digits, ldm_kl
from latents.backbones import dit_xl
from latents.declare import Experiment, Start
from latents.diffusion import Euler
from latents.optim import Adam
from latents.priors import Shortcut


def experiment(
  scale: Literal["tiny", "paper"] = "tiny", guidance: float | None = None, data_dir: str | None = None
) -> Experiment:
  """guidance: the scale of the finest steps, from which all others are learned."""
  base = digits.experiment("tiny") if scale == "tiny" else ldm_kl.experiment("paper", data_dir=data_dir)
  stage, prior = flow(base)
  if scale == "tiny":
    stage2 = dataclasses.replace(
      stage,
      prior=Shortcut(
        backbone=prior.backbone.clone(),
        finest=32,
        share=0.5,
        decay=0.95,
        target_guidance=guidance or 2.5,
        label_drop=0.1,
        sampler=Euler(1),
      ),
      start=(Start(stage=stage, source="backbone", into="backbone"),),
      optimizer=Adam(lr=5e-4, betas=(0.9, 0.95), warmup=20, schedule="cosine", clip=1.0),
      steps=700,
      ema=0.99,
    )
  else:
    stage2 = dataclasses.replace(
      stage,
      prior=Shortcut(
        backbone=dit_xl(2, classes=base.stage1.data.classes, dtype="bfloat16"),
        target_guidance=guidance or 1.5,
        label_drop=0.1,
        sampler=Euler(1),
      ),
      optimizer=Adam(lr=1e-4, decay=0.1),
      steps=800_000,
      batch=256,
    )
  return dataclasses.replace(base, name="shortcut", stage2=stage2)
