"""Latents or pixels, at equal compute: what the first stage buys.

Dieleman, "Generative modelling in latent space" (2025): most of what a picture's bits say is texture that nobody sees;
a first stage takes it away, and what remains is modelled with far less compute. Against it stand models of pixels in
one stage that are told to spend less on the finest detail: large patches with the data predicted (JiT, Li & He 2025,
arXiv:2511.13720) in place of the velocity, which large patches cannot carry.

    TFDS_DATA_DIR=../shared/data latents ablate experiments/ablations/two_stages_or_one.py --scale tiny --seeds 3

tiny: photographs of clothes at 32 px; the same transformer 4x128 on 64 tokens, of f4 c4 latents or of patches of 4
pixels, and on 256 tokens of patches of 2; these train for 10.1e12 FLOPs (`compute.flops`), the latent model with its
autoencoder for 9.5e12 (latents are encoded once and kept), and all draw 500 pictures in 30 steps with guidance 2. The
octaves say how much detail samples have beside photographs.
paper: DiT-XL/2 on `ldm_kl`'s latents, and the same on patches of 16 and 8 at 256 px; steps by FLOPs a picture (DiT-XL/2
0.71e12, at four times the tokens 3.1e12; LDM's first stage with its losses 2.9e12). The smallest differences that
count: nothing for the kernel distance but its sign, 0.02 of the agreement.
"""

import dataclasses
from typing import Any, Literal

from experiments.ablations import trick_ladder
from latents.ablations import Ablation, Against, Claim
from latents.autoencoders import Autoencoder
from latents.backbones import DiT, dit_xl
from latents.bottlenecks import NoBottleneck
from latents.declare import Experiment
from latents.decoders import IdentityDecoder
from latents.diffusion import LogitNormal, Process
from latents.encoders import IdentityEncoder
from latents.evaluate import ClassAgreement, EfficientNetFeatures, SampleSpectrum
from latents.priors import FlowPrior

SEEN = EfficientNetFeatures()
AGREEMENT, TOP = "samples.class_agreement_efficientnet_lite0", "samples.energy_top"
# name -> (pixels a side of a tiny scale's token, a fourth of the paper's; what is predicted; steps at either scale)
PIXELS: dict[str, tuple[int, Literal["velocity", "data"], tuple[int, int]]] = {
  "pixels": (4, "velocity", (945, 776_000)),
  "pixels-data": (4, "data", (945, 776_000)),
  "pixels-fine": (2, "velocity", (195, 175_000)),
}


def sweep(scale: Literal["tiny", "paper"] = "tiny") -> Ablation:
  return Ablation(
    variants={"latents": two(scale)} | {name: one(scale, *how) for name, how in PIXELS.items()},
    varies=("stage1.model", "stage1.losses", "stage1.steps", "stage2.prior", "stage2.steps", "stage2.cache"),
    columns=(trick_ladder.KERNEL, trick_ladder.FRECHET, trick_ladder.PRECISION, trick_ladder.RECALL, AGREEMENT,
             "samples.energy_0.0625", "samples.energy_0.125", "samples.energy_0.25", TOP, *trick_ladder.ERRORS,
             trick_ladder.SECONDS, trick_ladder.FLOPS, "reconstruction..psnr"),
    claims=claims(),
  )  # fmt: skip


def claims() -> tuple[Claim, ...]:
  """What the article and JiT lead one to expect."""
  return (
    Against(sentence="At equal compute latents are drawn better than pixels on as many tokens.", variant="latents",
            control="pixels", column=trick_ladder.KERNEL, direction="lower"),
    Against(sentence="And better than pixels on four times as many.", variant="latents", control="pixels-fine",
            column=trick_ladder.KERNEL, direction="lower"),
    Against(sentence="Their samples are more often of the class that was asked for.", variant="latents",
            control="pixels", column=AGREEMENT, direction="higher", least=0.02),
    Against(sentence="On large patches the data are the better thing to predict (JiT).", variant="pixels-data",
            control="pixels", column=trick_ladder.KERNEL, direction="lower"),
    Against(sentence="Latents lack the finest detail that pixels have.", variant="latents", control="pixels",
            column=TOP, direction="lower"),
  )  # fmt: skip


def two(scale: Literal["tiny", "paper"]) -> Experiment:
  """The latent model."""
  made = trick_ladder.frozen(scale)
  assert made.stage2 is not None
  prior = made.stage2.prior.clone(shift=1.0, sampler=trick_ladder.sampler(scale), guidance=2.0)
  metrics = (*made.evaluation.metrics, ClassAgreement(features=SEEN), SampleSpectrum())
  return dataclasses.replace(
    made,
    name="two_stages_or_one",
    stage2=dataclasses.replace(made.stage2, prior=prior),
    evaluation=dataclasses.replace(made.evaluation, metrics=metrics),
  )


def one(
  scale: Literal["tiny", "paper"], patch: int, predict: Literal["velocity", "data"], steps: tuple[int, int]
) -> Experiment:
  """The same on pixels, through the identity. patch: at the tiny scale, a fourth of the paper's; steps: of each."""
  made = two(scale)
  assert made.stage2 is not None and isinstance(made.stage2.prior, FlowPrior)
  size: dict[str, Any] = {"classes": made.stage2.prior.classes}
  tiny = scale == "tiny"
  backbone = (
    DiT(depth=4, width=128, heads=4, patch=patch, **size)
    if tiny
    else dit_xl(4 * patch, bottleneck=128, dtype="bfloat16", **size)
  )
  # in the units of pixels noise must be stronger for as much to be hidden (JiT: logit-normal about more noise)
  process = Process(predict=predict, compare="velocity") if predict == "data" else Process()
  prior = made.stage2.prior.clone(backbone=backbone, process=process, times=LogitNormal(0.8, 0.8))
  identity = Autoencoder(encoder=IdentityEncoder(), bottleneck=NoBottleneck(), decoder=IdentityDecoder())
  return dataclasses.replace(
    made,
    stage1=dataclasses.replace(made.stage1, model=identity, losses={}, steps=0),
    stage2=dataclasses.replace(made.stage2, prior=prior, steps=steps[0 if tiny else 1], cache=False),
  )
