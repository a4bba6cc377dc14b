"""A new decoder over a frozen encoder, against a discriminator: one prior, two decoders.

As sd-vae-ft-EMA and -MSE were made (Stability AI 2022: the decoder of Stable Diffusion's autoencoder trained on, first
313,198 steps with L1 + LPIPS, then 280,000 with MSE + 0.1 LPIPS; one prior serves all three decoders).

    latents run experiments/decoders/decoder_finetune.py

tiny: the decoder of `digits` trained on for 150 steps with L1 and a small PatchGAN. The prior is that of `digits`,
taken from the store where that run is there (`latents sample runs/digits --decoder runs/decoder_finetune` draws with
both). paper: `ldm_kl`'s decoder with MSE + 0.1 LPIPS, 280,000 steps.

Paper: three decoders share one prior (sd-vae-ft-EMA, -MSE)
Shown: 29.06 dB before; the prior is that of `digits`, found and not trained again
"""

import dataclasses
from typing import Literal

from experiments.images import digits, ldm_kl
from latents.declare import Experiment, Start
from latents.discriminators import PatchGAN
from latents.losses import L1, L2, Adversarial, LPIPSLoss, Weight
from latents.optim import Adam


def experiment(scale: Literal["tiny", "paper"] = "tiny", data_dir: str | None = None) -> Experiment:
  tiny = scale == "tiny"
  base = digits.experiment() if tiny else ldm_kl.experiment("paper", data_dir=data_dir)
  if tiny:
    judge = PatchGAN(ch=16, layers=2, norm="group")
    gan = Adversarial(discriminator=judge, weight=0.1, start=20, lead=20, clamp=10.0, optimizer=Adam(lr=5e-4))
    losses = {"l1": L1(), "kl": Weight(0.0), "gan": gan}
  else:
    losses = {"l2": L2(), "lpips": LPIPSLoss(weight=0.1, net="vgg"), "kl": Weight(0.0)}
  one = dataclasses.replace(
    base.stage1,
    losses=losses,
    start=(Start(stage=base.stage1),),
    trained=("decoder",),
    steps=150 if tiny else 280_000,
  )
  return dataclasses.replace(base, name="decoder_finetune", stage1=one)
