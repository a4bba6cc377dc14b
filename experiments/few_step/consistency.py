"""Data in one step, without a teacher. Consistency training: Song & Dhariwal 2023, arXiv:2310.14189 (iCT).

Algorithm 3 of Song et al. 2023, arXiv:2303.01469, improved. The same data with the same noise at two neighbouring times
are drawn to one estimate. Of iCT: no average of the student, pseudo-Huber distance, weights 1 / (difference of the
noise levels), lognormal levels, twice as many intervals each time that the run is as long again.

    latents run experiments/few_step/consistency.py
    latents run experiments/few_step/consistency.py --stage2.prior.sampler.steps 1

tiny: on the latents of `images/digits.py` and its linear path, beginning with the weights of its prior (Geng et al.
2024, arXiv:2406.14548, begin so too); 10 to 80 intervals. Guidance has no place in training and little in one step:
samples are of the conditional field; class agreement 0.93 in two steps and in one. paper: DiT-XL/2 on the latents of
`images/ldm_kl.py` from random weights, EDM's path; the deviation of these latents is 1, twice the paper's, and so are
all noise levels. The paper trains no latents.

Paper: FID 2.83 in one step, 2.46 in two (CIFAR-10); 4.02 and 3.20 (ImageNet-64); algorithm 3 alone 8.70 and 5.83
Shown: two steps give digits, one in fourteen of another class; strokes uneven.
"""

import dataclasses
import math
from typing import Literal

from experiments.few_step import flow
from experiments.images import digits, ldm_kl
from latents.backbones import dit_xl
from latents.declare import Experiment, Start
from latents.diffusion import Consistency, Exploding, Process
from latents.optim import Adam
from latents.priors import ConsistencyTraining, Doubling


def experiment(scale: Literal["tiny", "paper"] = "tiny", data_dir: str | None = None) -> Experiment:
  base = digits.experiment("tiny") if scale == "tiny" else ldm_kl.experiment("paper", data_dir=data_dir)
  stage, prior = flow(base)
  if scale == "tiny":
    stage2 = dataclasses.replace(
      stage,
      prior=ConsistencyTraining(
        backbone=prior.backbone.clone(),
        intervals=Doubling(10, 80, over=700),
        level=(0.0, 2.0),
        label_drop=0.0,
        sampler=Consistency(2),
      ),
      start=(Start(stage=stage, source="backbone", into="backbone"),),
      optimizer=Adam(lr=5e-4, warmup=20, schedule="cosine", clip=1.0),
      steps=700,
      ema=0.99,
    )
  else:
    steps = 400_000
    stage2 = dataclasses.replace(
      stage,
      prior=ConsistencyTraining(
        backbone=dit_xl(2, classes=base.stage1.data.classes, dtype="bfloat16"),
        process=Process(Exploding(160.0), "edm", data_std=1.0, least=0.004),
        intervals=Doubling(over=steps),
        level=(-1.1 + math.log(2), 2.0),
        label_drop=0.0,
        sampler=Consistency(2),
      ),
      optimizer=Adam(lr=1e-4),
      steps=steps,
      batch=1024,
      ema=0.9999,
    )
  return dataclasses.replace(base, name="consistency", stage2=stage2)
