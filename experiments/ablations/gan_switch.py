"""The moment at which a discriminator is switched on: three systems go through it, each beside itself without one.

A GAN term that begins on a trained autoencoder can ruin it (Esser et al. 2020, arXiv:2012.09841, on why it begins late
and is weighted by gradients). Safe here means: reconstructions come closer in a network's features, PSNR falls by less
than 1.5 dB, the discriminator is neither fooled nor never deceived (0.55 to 0.95 of its logits are right), and the
adaptive weight never reaches its bound.

    TFDS_DATA_DIR=../shared/data latents ablate experiments/ablations/gan_switch.py --scale tiny --seeds 3

tiny: photographs of 32 px, 1,000 steps; the judge learns from step 350 and is felt from 500, over a ramp of 50; every
step is in the log. kl: `ldm_kl` (hinge). pair: `ltx_image` (reconstruction GAN, non-saturating, and a wavelet loss).
fsq: codes of FSQ in place of the KL latent, as VQGAN. The weights of the GAN term (0.3, 0.25, 0.4) were chosen on the
first seed, so that the judge is deceived now and then. At most four minutes of one core a run. accuracy: the mean over
the later half of the steps with the judge; its lowest and highest are of tenths of that half. paper: `ldm_kl` and
`ltx_image` as they are, and `ldm_kl` on FSQ's codes.
"""

import dataclasses
from typing import Any, Literal

from experiments.ablations import reconstruction_losses as base
from experiments.images import ldm_kl, ltx_image
from latents.ablations import Ablation, Against, Claim, Equal, Within
from latents.bottlenecks import FSQ
from latents.declare import Experiment

SYSTEMS = {"kl": 0.3, "pair": 0.25, "fsq": 0.4}  # the weight of the GAN term at the tiny scale
LOWEST, HIGHEST = (f"judges.gan.accuracy_{end}" for end in ("lowest", "highest"))


def sweep(scale: Literal["tiny", "paper"] = "tiny") -> Ablation:
  made = {name: _made(scale, name) for name in SYSTEMS}
  return Ablation(
    variants={f"{name}{'-gan' * judged}": _judged(made[name], judged) for name in SYSTEMS for judged in (False, True)},
    varies=("stage1",),
    columns=(base.PSNR, base.KERNEL, base.TOP, base.ACCURACY, LOWEST, HIGHEST, base.CLAMP),
    curves=base.CURVES,
    claims=tuple(claim for name in SYSTEMS for claim in _claims(name)),
  )


def _claims(name: str) -> tuple[Claim, ...]:
  one: dict[str, Any] = {"variant": f"{name}-gan", "control": name}
  return (
    Against(sentence=f"{name}: features of reconstructions come closer.", **one, column=base.KERNEL, direction="lower"),
    Equal(sentence=f"{name}: it costs less than 1.5 dB.", **one, column=base.PSNR, margin=1.5),
    Within(sentence=f"{name}: the judge is neither fooled nor never deceived.", variant=f"{name}-gan",
           column=base.ACCURACY, low=0.55, high=0.95),
    Within(sentence=f"{name}: the adaptive weight stays below its bound.", variant=f"{name}-gan", column=base.CLAMP,
           low=0.0, high=0.999),
  )  # fmt: skip


def _made(scale: Literal["tiny", "paper"], name: str) -> Experiment:
  made = ltx_image.experiment(scale) if name == "pair" else ldm_kl.experiment(scale)
  if name == "fsq":
    levels = (8, 8, 8, 5, 5, 5)
    model: Any = made.stage1.model
    model = model.clone(encoder=model.encoder.clone(out=len(levels)), bottleneck=FSQ(levels=levels))
    losses = {k: loss for k, loss in made.stage1.losses.items() if k != "kl"}
    made = dataclasses.replace(made, stage1=dataclasses.replace(made.stage1, model=model, losses=losses))
  usual = base.variant(scale, ())
  made = dataclasses.replace(made, name="gan_switch", stage2=None, evaluation=usual.evaluation)
  if scale == "paper":
    return made
  one = usual.stage1
  gan: Any = made.stage1.losses["gan"]
  gan = dataclasses.replace(gan, weight=SYSTEMS[name], start=one.steps // 2, lead=150, ramp=50)
  same = {field: getattr(one, field) for field in ("data", "optimizer", "steps", "batch", "ema")}
  first = dataclasses.replace(made.stage1, **same, losses={**made.stage1.losses, "gan": gan}, log_every=1)
  return dataclasses.replace(made, stage1=first)


def _judged(made: Experiment, judged: bool) -> Experiment:
  losses = {name: loss for name, loss in made.stage1.losses.items() if judged or name != "gan"}
  return dataclasses.replace(made, stage1=dataclasses.replace(made.stage1, losses=losses))
