"""A flow distilled into one step. Consistency models: Song, Dhariwal, Chen, Sutskever 2023, arXiv:2303.01469.

Algorithm 2: the student's estimate of the data at one time of a grid is drawn to its own (averaged) estimate after one
step of the teacher's flow. The paper has, on CIFAR-10, FID 3.55 in one step and 2.93 in two, on ImageNet-64 6.20 and
4.70, with LPIPS as distance and Heun's step. Here the distance is the squared error of latents, on the linear path, and
the teacher steps with its guidance (as in latent consistency models, Luo et al. 2023, arXiv:2310.04378): the student
needs neither steps nor guidance.

    latents run experiments/few_step/consistency_distillation.py
    latents run experiments/few_step/consistency_distillation.py --stage2.prior.sampler.steps 1

tiny: the prior of `images/digits.py` as teacher, which is trained first, or found; two minutes of one CPU core after
it. Class agreement in two steps 0.89 (after 200 training steps 0.86; the teacher in 30 steps: 0.96). paper: SiT-XL/2 of
`images/ldm_kl.py`; steps, rate and intervals are ours, the paper distils no latents.

Paper: FID 3.55 in one step, 2.93 in two (CIFAR-10)
Shown: two steps without guidance in place of 30 with; 3, 8 and 9 are confused now and then
"""

import dataclasses
from typing import Literal

from experiments.images import digits, ldm_kl
from latents.declare import Experiment, Start
from latents.diffusion import Consistency
from latents.optim import Adam
from latents.priors import ConsistencyDistillation, FlowPrior


def experiment(
  scale: Literal["tiny", "paper"] = "tiny", guidance: float | None = None, data_dir: str | None = None
) -> Experiment:
  """guidance: the scale with which the teacher steps."""
  tiny = scale == "tiny"
  base = digits.experiment("tiny") if tiny else ldm_kl.experiment("paper", data_dir=data_dir)
  teacher = base.stage2
  assert teacher is not None and isinstance(teacher.prior, FlowPrior)
  prior = ConsistencyDistillation(
    backbone=teacher.prior.backbone.clone(),
    teacher=teacher.prior.clone(),
    intervals=20 if tiny else 40,
    teacher_guidance=guidance or (2.5 if tiny else 1.5),
    sampler=Consistency(2),
  )
  stage2 = dataclasses.replace(
    teacher,
    prior=prior,
    start=(Start(stage=teacher, into="teacher"), Start(stage=teacher, source="backbone", into="backbone")),
    trained=("backbone", "average"),
    optimizer=Adam(lr=3e-4, warmup=20, schedule="cosine", clip=1.0) if tiny else Adam(lr=1e-5, warmup=1000),
    steps=400 if tiny else 100_000,
    ema=0.99 if tiny else 0.9999,
  )
  return dataclasses.replace(base, name="consistency_distillation", stage2=stage2)
