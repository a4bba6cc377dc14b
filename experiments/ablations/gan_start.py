"""When the judge is switched on: never, at once, half way, and half way with a judge that has learnt before.

Esser et al. 2020, arXiv:2012.09841, and Rombach et al. 2022, arXiv:2112.10752, switch the discriminator on after tens
of thousands of steps of regression; ViTok (Hansen-Estruch et al. 2025, arXiv:2501.09755) trains the judge first and
ramps its term, DC-AE (Chen et al. 2024, arXiv:2410.10733) keeps it for a last phase. Dieleman, "Generative modelling in
latent space" (2025): what a judge gives are details, and it can be told late, when there is a picture to judge.

    TFDS_DATA_DIR=../shared/data latents ablate experiments/ablations/gan_start.py --scale tiny --seeds 2

tiny: the runs of `reconstruction_losses` (L2, perceptual, judge), 1,000 steps, at most four minutes of one core a run.
paper: `ldm_kl`'s stage 1 of 250,000 steps with LDM's 50,001 as "early".
The smallest differences that count: 0.2 dB; "safe" means less than 1.5 dB and features that come closer.
"""

import dataclasses
from typing import Literal

from experiments.ablations import reconstruction_losses as base
from experiments.images import ldm_kl
from latents.ablations import Ablation, Against, Equal
from latents.declare import Experiment
from latents.losses import Adversarial


def sweep(scale: Literal["tiny", "paper"] = "tiny") -> Ablation:
  half = base.STEPS // 2 if scale == "tiny" else 125_000
  lead = 50 if scale == "tiny" else 5_000
  return Ablation(
    variants={
      "never": _variant(scale, None),
      "at-once": _variant(scale, {"start": 0}),
      "early": _variant(scale, {"start": base.STEPS // 4 if scale == "tiny" else 50_001}),
      "half": _variant(scale, {"start": half}),
      "half-led": _variant(scale, {"start": half, "lead": lead, "ramp": 2 * lead}),
    },
    varies=("stage1.losses.gan",),
    columns=(*base.COLUMNS[:-1], base.ACCURACY),
    curves=base.CURVES,
    claims=(
      Against(sentence="A judge from half way on brings the features of reconstructions closer.", variant="half",
              control="never", column=base.KERNEL, direction="lower"),
      Equal(sentence="Its switch-on is safe: it costs less than 1.5 dB.", variant="half", control="never",
            column=base.PSNR, margin=1.5),
      Against(sentence="From the first step on it costs more than from half way on.", variant="at-once",
              control="half", column=base.PSNR, direction="lower", least=0.2),
      Equal(sentence="Late is enough: half the steps with a judge give as much fine detail as all of them.",
            variant="half", control="at-once", column=base.TOP, margin=0.1),
      Equal(sentence="A judge that leads and a ramp change little once the network is trained.", variant="half-led",
            control="half", column=base.PSNR, margin=0.2),
    ),
  )  # fmt: skip


def _variant(scale: Literal["tiny", "paper"], schedule: dict[str, int] | None) -> Experiment:
  """schedule: `start`, `lead` and `ramp` of the judge; None: there is none."""
  if schedule is None:
    made = base.variant(scale, ("perceptual",))
  else:
    judge = base.tiny_judge(**schedule)
    if scale == "paper":
      usual = ldm_kl.experiment("paper").stage1.losses["gan"]
      assert isinstance(usual, Adversarial)
      judge = dataclasses.replace(usual, **{"lead": 0, "ramp": 0, **schedule})
    made = base.variant(scale, ("perceptual", "adversarial"), judge)
  return dataclasses.replace(made, name="gan_start")
