"""DiT: a transformer in place of the U-Net of latent diffusion. Peebles & Xie 2023, arXiv:2212.09748.

Patches of a latent are tokens, time and class modulate every block (adaLN-Zero), and the loss is iDDPM's: the noise on
DDPM's path and the variance of each reverse step beside it (arXiv:2102.09672). Table 1 has S, B, L and XL with 33M,
131M, 458M and 675M parameters; FID-50K on ImageNet-256 falls with the compute of a forward pass, whether it comes from
width, depth or smaller patches.

    latents run experiments/priors/dit.py

tiny: the DiT of `images/digits.py` on its latents (one stage 1 for both), trained as `ddpm` is for fewer steps; about
four minutes of one CPU core. paper: DiT-XL/2 on the latents of `images/ldm_kl.py`: 256 latents a step, Adam 1e-4
without warm-up or decay, average 0.9999, 250 steps of the chain, guidance 1.5. 400k steps, of which the paper reports
FID 19.5 without guidance; its best model has 7M. The first three channels of the latent
are guided, as in the paper's code.

Paper: FID 9.62 without, 2.27 with guidance 1.5 (DiT-XL/2, 7M steps)
Shown: digits, one in thirty of another class; compared by the noise some 2s and 7s break.
"""

import dataclasses
from typing import Literal

from experiments.images import digits, ldm_kl
from experiments.priors.ddpm import chain
from latents.backbones import DiT, dit_xl
from latents.declare import Experiment
from latents.diffusion import DDPM, Betas


def experiment(scale: Literal["tiny", "paper"] = "tiny", data_dir: str | None = None) -> Experiment:
  tiny = scale == "tiny"
  base = digits.experiment("tiny") if tiny else ldm_kl.experiment("paper", data_dir=data_dir)
  assert base.stage2 is not None
  classes, dim = base.stage1.data.classes, 4
  if tiny:
    backbone = DiT(6, 128, 4, classes=classes, out=2 * dim)
  else:
    backbone = dit_xl(2, classes=classes, out=2 * dim, dtype="bfloat16")
  prior = chain(backbone, Betas(), DDPM(50 if tiny else 250, variance="learned"), 2.5 if tiny else 1.5)
  if not tiny:
    prior = prior.clone(guided_channels=3)
  two = dataclasses.replace(base.stage2, prior=prior, **({"steps": 2500} if tiny else {}))
  return dataclasses.replace(base, name="dit", stage2=two)
