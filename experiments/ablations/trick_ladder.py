"""From DDPM's U-Net to LightningDiT, one step at a time, over one frozen autoencoder.

Yao & Wang 2025 (LightningDiT, arXiv:2501.01423, table 1) put known tricks on DiT one after the other: FID of DiT-XL/2
on SD-VAE latents at 80 epochs without guidance 19.5, with rectified flow 17.2, beta2 of 0.95 16.6, logit-normal times
14.0, the loss on the velocity's direction 12.5, SwiGLU 10.1, RMSNorm 9.3, rotary positions 7.1. Before them stands
latent diffusion's U-Net (Rombach et al. 2022, arXiv:2112.10752), which DiT replaces (arXiv:2212.09748).

    TFDS_DATA_DIR=../shared/data latents ablate experiments/ablations/trick_ladder.py --scale tiny --seeds 3

tiny: photographs of clothes at 32 px, f4 c4, 1,000 steps of the autoencoder, which all share; then 700 steps of a
transformer 4x128 on its 64 tokens, or of a U-Net of as many FLOPs, and 500 samples in 30 steps of DPM-Solver++ without
guidance. paper: the ladder of the paper on `ldm_kl`'s latents. The errors of the data at fixed log-SNR are of held-out
pictures, on whatever path: what a rung gains is seen where it gains it. The smallest differences that count: 0.002 of
these errors, nothing for the kernel distance but its sign.
"""

import dataclasses
from typing import Any, Literal

from experiments.ablations import reconstruction_losses
from experiments.images import ldm_kl
from latents.ablations import Ablation, Against, Claim, Stepwise
from latents.backbones import DiT, UNet, dit_xl
from latents.data import Tfds
from latents.declare import Experiment, Stage2
from latents.diffusion import Betas, DPMSolver2M, LogitNormal, Process, Steps, Uniform
from latents.optim import Adam
from latents.priors import FlowPrior

ORDER = (
  "unet", "dit", "flow", "beta2", "logit-normal", "direction", "swiglu", "rms", "rope", "qk-norm"
)  # fmt: skip
ERRORS = tuple(f"prior.data_error_at_{level}" for level in (-4, -2, 0, 2, 4))
KERNEL, FRECHET = "samples.kernel_efficientnet_lite0", "samples.frechet_efficientnet_lite0"
PRECISION, RECALL = "samples.precision_efficientnet_lite0", "samples.recall_efficientnet_lite0"
SECONDS, FLOPS = "time.sample_s", "compute.flops"
LDM = Betas(0.0015, 0.0195, rise="root")


def sweep(scale: Literal["tiny", "paper"] = "tiny") -> Ablation:
  return Ablation(
    variants={name: rung(scale, i) for i, name in enumerate(ORDER)},
    varies=("stage2.prior", "stage2.optimizer"),
    columns=(KERNEL, FRECHET, PRECISION, RECALL, *ERRORS, SECONDS, FLOPS),
    curves=(),
    claims=claims(),
    seeds_of="stage2",
  )


def claims() -> tuple[Claim, ...]:
  """What the paper's table says."""
  return (
    Against(sentence="A transformer draws better than a U-Net of as many FLOPs (DiT).", variant="dit", control="unet",
            column=KERNEL, direction="lower"),
    Against(sentence="Rectified flow draws better than DDPM's noise on LDM's betas.", variant="flow", control="dit",
            column=KERNEL, direction="lower"),
    Against(sentence="Logit-normal times draw better than uniform ones.", variant="logit-normal", control="beta2",
            column=KERNEL, direction="lower"),
    Against(sentence="They learn more in the middle, where the log-SNR is 0.", variant="logit-normal", control="beta2",
            column=ERRORS[2], direction="lower", least=0.002),
    Against(sentence="And the direction of the velocity helps.", variant="direction", control="logit-normal",
            column=KERNEL, direction="lower"),
    Stepwise(sentence="SwiGLU, RMSNorm and rotary positions each lower the held-out error at log-SNR 0.",
             order=("direction", "swiglu", "rms", "rope"), column=ERRORS[2], direction="lower"),
    Against(sentence="The whole ladder draws better than where it began.", variant="rope", control="unet",
            column=KERNEL, direction="lower"),
    Against(sentence="And its held-out error at log-SNR 0 is lower.", variant="rope", control="unet", column=ERRORS[2],
            direction="lower", least=0.002),
  )  # fmt: skip


def rung(scale: Literal["tiny", "paper"], number: int) -> Experiment:
  """The base with the first `number` tricks."""
  tiny, has = scale == "tiny", ORDER[: number + 1]
  base = frozen(scale)
  assert base.stage2 is not None
  size: dict[str, Any] = {"classes": base.stage2.prior.classes}
  size |= {"norm": "rms"} if "rms" in has else {}
  size |= {"mlp": "swiglu"} if "swiglu" in has else {}
  size |= {"rope": True} if "rope" in has else {}
  size |= {"qk_norm": True} if "qk-norm" in has else {}
  if number:
    backbone = DiT(depth=4, width=128, heads=4, patch=1, **size) if tiny else dit_xl(2, dtype="bfloat16", **size)
  elif tiny:
    backbone = UNet(ch=64, mult=(1, 2), blocks=1, attention=(0, 1), heads=4, film=False, **size)
  else:
    backbone = UNet(ch=256, mult=(1, 2, 4), attention=(0, 1, 2), heads=8, film=False, dtype="bfloat16", **size)
  flow = "flow" in has
  process = Process(direction=1.0 if "direction" in has else 0.0) if flow else Process(LDM, "noise")
  prior = FlowPrior(
    backbone=backbone,
    times=LogitNormal() if "logit-normal" in has else Uniform() if flow else Steps(),
    shift=1.0,
    sampler=sampler(scale),
    process=process,
  )
  betas = (0.9, 0.95) if "beta2" in has else (0.9, 0.999)
  adam = dataclasses.replace(base.stage2.optimizer, betas=betas)  # pyright: ignore
  return dataclasses.replace(base, stage2=dataclasses.replace(base.stage2, prior=prior, optimizer=adam))


def sampler(scale: Literal["tiny", "paper"]) -> DPMSolver2M:
  """One for all, whatever the path."""
  return DPMSolver2M(30 if scale == "tiny" else 50)


def frozen(scale: Literal["tiny", "paper"]) -> Experiment:
  """The autoencoder that all share, and how its priors are trained and judged."""
  if scale == "paper":
    return dataclasses.replace(ldm_kl.experiment("paper"), name="trick_ladder")
  made = reconstruction_losses.with_prior(reconstruction_losses.variant("tiny", ("perceptual",)))
  data = Tfds("clothing128", None, 32, labels=10)
  two = Stage2(
    data=data,
    prior=FlowPrior(backbone=DiT(depth=4, width=128, heads=4, patch=1, classes=10)),
    optimizer=Adam(lr=1e-3, warmup=50, schedule="cosine", clip=1.0),
    steps=700,
    batch=32,
    ema=0.99,
    cache=True,
  )
  return dataclasses.replace(
    made,
    name="trick_ladder",
    stage1=dataclasses.replace(made.stage1, data=data),
    stage2=two,
    evaluation=dataclasses.replace(made.evaluation, images=500, samples=500, batch=100),
  )
