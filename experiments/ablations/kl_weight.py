"""The weight of the KL term: more of it is less rate and worse reconstruction (rate, distortion, modelability).

Dieleman, "Generative modelling in latent space" (2025), on KL-regularised autoencoders: at its full weight the term
would take most of the latents' capacity and spoil the reconstruction, so it is scaled down by orders of magnitude
(Rombach et al. 2022, arXiv:2112.10752, take 1e-6), until it does little more than hold the latents' scale.
What is easier to model is the third side of the trade: here how often a classifier agrees with the samples' labels.

    latents ablate experiments/ablations/kl_weight.py

tiny: digits of 16 pixels, f4 (4x4x4 latents), 100 + 400 steps, DiT 2x64; four weights of the KL term (its mean over
latent numbers, beside an L2 in [-1,1]); about a minute of one core a run. So short a prior does not learn the labels
(agreement at chance, 0.1): rate and distortion are what this scale can judge, the claim on modelability needs longer
runs. paper: the same weights at the paper scale of digits; no paper has it.
The smallest differences that count: 0.5 dB, 5 % of agreement, 20 bits.
"""

import dataclasses
from typing import Literal

from experiments.images import digits
from latents.ablations import Ablation, Against, Equal, Ranks, Stepwise
from latents.backbones import DiT
from latents.declare import Experiment

WEIGHTS = {"1e-6": 1e-6, "1e-4": 1e-4, "1e-2": 1e-2, "1e-1": 1e-1}
PSNR, BITS, AGREEMENT = "reconstruction..psnr", "latent.capacity_bits", "samples.class_agreement"


def sweep(scale: Literal["tiny", "paper"] = "tiny") -> Ablation:
  order = tuple(WEIGHTS)
  return Ablation(
    variants={name: _variant(scale, weight) for name, weight in WEIGHTS.items()},
    varies=("stage1.losses.kl.weight",),
    columns=(PSNR, BITS, "latent.kl_bits", AGREEMENT, "samples.sample_to_train"),
    claims=(
      Stepwise(sentence="Every step up in KL weight lowers the rate.", order=order, column=BITS, direction="lower",
               least=20.0),
      Ranks(sentence="Distortion follows the weight: more KL, lower PSNR.", order=order, column=PSNR,
            direction="lower", least=0.8),
      Against(sentence="The strongest KL costs reconstruction.", variant="1e-1", control="1e-6", column=PSNR,
              direction="lower", least=0.5),
      Equal(sentence="As small as it is used in practice (1e-6 to 1e-4) it hardly costs reconstruction.",
            variant="1e-4", control="1e-6", column=PSNR, margin=0.5),
      Against(sentence="A moderate KL makes latents that are easier to model.", variant="1e-2", control="1e-6",
              column=AGREEMENT, direction="higher", least=0.05),
    ),
  )  # fmt: skip


def _variant(scale: Literal["tiny", "paper"], weight: float) -> Experiment:
  if scale == "paper":
    return digits.experiment(scale, kl=weight)
  made = digits.experiment(scale, kl=weight, size=16)
  assert made.stage2 is not None
  prior = made.stage2.prior.clone(backbone=DiT(depth=2, width=64, heads=2, patch=1, classes=10), guidance=2.0)
  return dataclasses.replace(
    made,
    stage1=dataclasses.replace(made.stage1, steps=100),
    stage2=dataclasses.replace(made.stage2, prior=prior, steps=400, ema=0.98),
    evaluation=dataclasses.replace(made.evaluation, samples=200),
  )
