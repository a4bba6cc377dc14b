"""How the loss weighs noise levels, and what that keeps of a picture by frequency.

Dieleman, "Noise schedules considered harmful" (2024) and "Generative modelling in latent space" (2025): noise hides the
finest detail first, so the weight of a noise level is the weight of a band of frequencies, and the usual losses are
perceptual ones, since they care less for the last details than the likelihood does. Kingma & Gao 2023
(arXiv:2303.00848) write all of them as one function of the log-SNR.

    TFDS_DATA_DIR=../shared/data latents ablate experiments/ablations/weightings.py --scale tiny --seeds 3

tiny: pixels of photographs of clothes at 32 px, no autoencoder, so that frequencies are those of the picture; a
transformer 4x128 on patches of 4 that predicts the data, 700 steps; uniform times on the linear path and only the
weight differs: of the likelihood (1/2 slope SNR, whose gradients are cut to norm 1), the noise, the velocity, min-SNR
(Hang et al. 2023, arXiv:2303.09556), P2 (Choi et al. 2022, arXiv:2204.00227), the sigmoid of SiD2 (Hoogeboom et al.
2024, arXiv:2410.19324) and EDM's (Karras et al. 2022, arXiv:2206.00364). 500 samples in 30 steps, without guidance.
paper: the same on JiT-XL's patches of 16 (arXiv:2511.13720) of ImageNet-256. The smallest difference that counts: 2 %
of an error, 0.02 of the energy in an octave.
"""

import dataclasses
from typing import Literal

from experiments.ablations import trick_ladder, two_stages_or_one
from latents.ablations import Ablation, Against, Claim, Ranks
from latents.declare import Experiment
from latents.diffusion import MinSNR, Process, Uniform
from latents.diffusion.weights import P2, EDMWeight, Likelihood, Sigmoid, Unit
from latents.priors import FlowPrior

WEIGHTS = {
  "likelihood": Likelihood(),
  "noise": Unit("noise"),
  "edm": EDMWeight(),
  "velocity": Unit("straight"),
  "min-snr": MinSNR(),
  "p2": P2(),
  "sigmoid": Sigmoid(),
}  # from what cares most for detail to what cares least
ERRORS = trick_ladder.ERRORS
TOP = two_stages_or_one.TOP


def sweep(scale: Literal["tiny", "paper"] = "tiny") -> Ablation:
  return Ablation(
    variants={name: variant(scale, weight) for name, weight in WEIGHTS.items()},
    varies=("stage2.prior.process.weight",),
    columns=(*ERRORS, "samples.energy_0.0625", "samples.energy_0.125", "samples.energy_0.25", TOP,
             trick_ladder.KERNEL, trick_ladder.FRECHET, trick_ladder.PRECISION, trick_ladder.RECALL),
    claims=claims(),
    seeds_of="stage2",
  )  # fmt: skip


def claims() -> tuple[Claim, ...]:
  """What the article says of weights as perceptual losses."""
  return (
    Against(sentence="The likelihood spends its capacity on the finest detail: its error there is the lower one.",
            variant="likelihood", control="velocity", column=ERRORS[4], direction="lower"),
    Against(sentence="What is coarse it learns worse.", variant="likelihood", control="velocity", column=ERRORS[1],
            direction="higher"),
    Against(sentence="And so its samples are further from photographs in a network's features.", variant="likelihood",
            control="velocity", column=trick_ladder.KERNEL, direction="higher"),
    Ranks(sentence="The more a weight cares for detail, the lower the error at the highest log-SNR.",
          order=tuple(WEIGHTS), column=ERRORS[4], direction="higher"),
    Ranks(sentence="And the higher the error at the lowest.", order=tuple(WEIGHTS), column=ERRORS[0],
          direction="lower"),
    Against(sentence="Min-SNR, which is the data's error at low noise, draws better than the noise's.",
            variant="min-snr", control="noise", column=trick_ladder.KERNEL, direction="lower"),
  )  # fmt: skip


def variant(scale: Literal["tiny", "paper"], weight) -> Experiment:
  """The base with another weight."""
  made = two_stages_or_one.one(scale, patch=4, predict="data", steps=(700, 400_000))
  assert made.stage2 is not None and isinstance(made.stage2.prior, FlowPrior)
  process = Process(predict="data", weight=weight)
  prior = made.stage2.prior.clone(process=process, times=Uniform(), guidance=1.0)
  return dataclasses.replace(made, name="weightings", stage2=dataclasses.replace(made.stage2, prior=prior))
