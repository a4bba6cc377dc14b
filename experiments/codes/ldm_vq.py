"""Latent diffusion on vectors that the decoder quantises: LDM's VQ-reg. Rombach et al. 2022, arXiv:2112.10752, f4.

Stage 1 is a VQGAN with a codebook of many entries of 3 channels. Diffusion sees the vectors in front of the quantiser,
and the quantiser belongs to the decoder, which puts what was sampled on the nearest entries: stage 2 has a continuous
latent, and what it leaves of noise is rounded off. Unlike LDM's KL models, its loss is a mean over pixels, so clamp and
epsilon are as written. 55,322,782 parameters, as released; `latents import --layout ldm-vq-f4` reads them.

    latents run experiments/codes/ldm_vq.py --scale tiny
    latents run experiments/codes/ldm_vq.py --scale paper --data-dir DIR --stage1.losses.lpips.path vgg.pth

tiny: 32 px digits, the network and the prior of `digits`, 512 entries. paper: ImageNet at 256 px, K = 8,192, judge 0.75
from the start on; the network, LPIPS and the DiT of `ldm_kl` at f4 (the authors': a U-Net of 400 million, FID 10.56,
3.60 with guidance).

Paper: rFID 0.58, PSNR 27.43 dB (README, f4, K 8192; without attention 1.06, 25.21); FID 10.56, 3.60 with guidance
Shown: samples are digits of their class, soft; the prior sees vectors, the decoder codes (a quarter of 512)
"""

import dataclasses
from typing import Literal

from experiments.images import digits, ldm_kl
from latents.bottlenecks import VQ, VQReg
from latents.declare import Experiment
from latents.losses import Adversarial, Weight
from latents.optim import Adam

DIM = 3


def experiment(
  scale: Literal["tiny", "paper"] = "tiny",
  vocab: int | None = None,
  data: str | None = None,
  data_dir: str | None = None,
) -> Experiment:
  """vocab: codebook entries K. data, data_dir: as of `ldm_kl` (paper)."""
  tiny = scale == "tiny"
  made = digits.experiment() if tiny else ldm_kl.experiment("paper", data=data, data_dir=data_dir, factor=4)
  one = made.stage1
  losses = {name: loss for name, loss in one.losses.items() if name != "kl"} | {"vq": Weight(1.0)}
  if not tiny:
    rate = 4.5e-6 * one.batch
    adam = Adam(lr=rate, betas=(0.5, 0.9))
    losses["gan"] = Adversarial(weight=0.75, clamp=1e4, optimizer=adam)
    one = dataclasses.replace(one, optimizer=adam, steps=533_066)
  code = VQReg(VQ(vocab=vocab or (512 if tiny else 8192), dim=DIM, legacy=True))
  model = one.model.clone(encoder=one.model.encoder.clone(out=DIM), bottleneck=code)
  return dataclasses.replace(made, name="ldm_vq", stage1=dataclasses.replace(one, model=model, losses=losses))
