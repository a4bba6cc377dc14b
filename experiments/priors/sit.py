"""SiT: DiT's network, trained by an interpolant. Ma et al. 2024, arXiv:2401.08740.

The velocity of the straight path between data and noise, at uniform times. What was learned is an ODE and a family of
SDEs at once, so the sampler is chosen afterwards. From DiT to SiT nothing else changes, and FID-50K on ImageNet-256 at
400k steps falls from 19.5 to 17.2 (XL/2, no guidance).

    latents run experiments/priors/sit.py

tiny: the DiT of `images/digits.py` on its latents (one stage 1 for both); there times are logit-normal, here uniform;
25 steps of Heun. paper: SiT-XL/2 on the latents of `images/ldm_kl.py`: 256 latents a step, Adam 1e-4, average 0.9999,
250 steps of the SDE, of which the last, from 0.04, adds no noise; the first three channels are guided, as the paper's
code does; time is counted from noise to data and not stretched, as the paper's network sees it.

Paper: FID 8.3 without, 2.06 with guidance 1.5 by the SDE, 2.15 by the ODE (SiT-XL/2, 7M steps)
Shown: samples are digits of their class, at uniform times as at logit-normal ones
"""

import dataclasses
from typing import Literal

from experiments.images import digits, ldm_kl
from latents.declare import Experiment
from latents.diffusion import Early, EulerMaruyama, Even, Heun, Uniform


def experiment(scale: Literal["tiny", "paper"] = "tiny", data_dir: str | None = None) -> Experiment:
  tiny = scale == "tiny"
  base = digits.experiment("tiny") if tiny else ldm_kl.experiment("paper", data_dir=data_dir)
  assert base.stage2 is not None
  prior = base.stage2.prior.clone(
    backbone=base.stage2.prior.backbone.clone(clock=(-1.0, 1.0)),
    times=Uniform(),
    shift=1.0,
    sampler=Heun(25) if tiny else EulerMaruyama(250),
    guidance=3.5 if tiny else 1.5,
    guided_channels=None if tiny else 3,
    grid=Even() if tiny else Early(),
  )
  return dataclasses.replace(base, name="sit", stage2=dataclasses.replace(base.stage2, prior=prior))
