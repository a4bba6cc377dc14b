"""How large the latent is, and how its numbers are spread over places and channels.

Dieleman, "Generative modelling in latent space" (2025): of one tensor size reduction (TSR, numbers of the picture over
numbers of the latent) several configurations often rebuild about equally well, whatever the factor f of the grid;
another TSR changes much, the reconstruction for the better and the modelling for the worse as the latent grows.
Hansen-Estruch et al. 2025 (ViTok, arXiv:2501.09755): E, the numbers of a latent, predicts the reconstruction, not the
patch.

    TFDS_DATA_DIR=../shared/data latents ablate experiments/ablations/tensor_size.py --scale tiny --seeds 2

tiny: photographs of 32 px, the networks and losses of `reconstruction_losses` (L2, perceptual) at f2, f4 and f8, and
ViTs of width 96 of patches 4 and 8; a DiT 4x96 of 300 steps on each latent (f2 in patches of 2); at most four minutes
of one core a run. Bits: what a latent carries (capacity of its Gaussian channels). paper: `ldm_kl`'s f4c3, f8c4, f16c16
and f32c64 as Rombach et al. 2022 have them, and f8 with 1 and 16 channels.
The smallest differences that count: 1 dB between latents of one size, as much between sizes.
"""

import dataclasses
from typing import Any, Literal

from experiments.ablations import reconstruction_losses as base
from experiments.images import ldm_kl
from latents.ablations import Ablation, Against, Claim, Equal, Ranks
from latents.autoencoders import Autoencoder
from latents.bottlenecks import KL
from latents.declare import Experiment
from latents.decoders import ConvDecoder, ViTDecoder
from latents.encoders import ConvEncoder, ViTEncoder

TINY = {"f4c1": (4, 1), "f8c4": (8, 4), "f2c1": (2, 1), "f4c4": (4, 4), "f8c16": (8, 16), "f4c16": (4, 16)}
VITS = {"vit-p4c4": (4, 4), "vit-p8c16": (8, 16)}
PAPER = {"f8c1": (8, 1), "f32c64": (32, 64), "f4c3": (4, 3), "f8c4": (8, 4), "f16c16": (16, 16), "f8c16": (8, 16)}
TSR, BITS = "latent.tsr", "latent.capacity_bits"


def sweep(scale: Literal["tiny", "paper"] = "tiny") -> Ablation:
  make = _tiny if scale == "tiny" else _paper
  return Ablation(
    variants=make(),
    varies=("stage1.model", "stage1.losses.kl.weight", "stage2.prior.backbone") if scale == "paper" else
    ("stage1.model", "stage2.prior.backbone"),
    columns=(TSR, base.PSNR, base.SSIM, base.KERNEL, BITS, base.TOP, *base.SAMPLES),
    claims=_tiny_claims() if scale == "tiny" else _paper_claims(),
  )  # fmt: skip


def _tiny_claims() -> tuple[Claim, ...]:
  sizes = ("f4c1", "f4c4", "f4c16")
  return (
    Equal(sentence="Of one TSR (12), f8c16 rebuilds as well as f4c4.", variant="f8c16", control="f4c4",
          column=base.PSNR, margin=1.0),
    Equal(sentence="And so does f2c1.", variant="f2c1", control="f4c4", column=base.PSNR, margin=1.0),
    Equal(sentence="Of TSR 48, f8c4 rebuilds as well as f4c1.", variant="f8c4", control="f4c1", column=base.PSNR,
          margin=1.0),
    Ranks(sentence="Of one factor, more channels rebuild better.", order=sizes, column=base.PSNR, direction="higher",
          least=1.0),
    Against(sentence="The step from TSR 48 to 12 is large.", variant="f4c4", control="f4c1", column=base.PSNR,
            direction="higher", least=1.0),
    Against(sentence="And so is that from 12 to 3.", variant="f4c16", control="f4c4", column=base.PSNR,
            direction="higher", least=1.0),
    Against(sentence="But the largest latent is harder to model than one four times smaller.", variant="f4c16",
            control="f4c4", column=base.SAMPLES[0], direction="higher"),
    Equal(sentence="E decides, not the patch: a ViT rebuilds as well from patches of 8 as of 4.", variant="vit-p8c16",
          control="vit-p4c4", column=base.PSNR, margin=1.0),
  )  # fmt: skip


def _paper_claims() -> tuple[Claim, ...]:
  return (
    Equal(sentence="Of one TSR (48), f16c16 rebuilds as well as f8c4.", variant="f16c16", control="f8c4",
          column=base.PSNR, margin=1.0),
    Ranks(sentence="Of one factor, more channels rebuild better.", order=("f8c1", "f8c4", "f8c16"), column=base.PSNR,
          direction="higher", least=1.0),
    Against(sentence="But the largest latent is harder to model.", variant="f8c16", control="f8c4",
            column=base.SAMPLES[0], direction="higher"),
  )  # fmt: skip


def _tiny() -> dict[str, Experiment]:
  start = base.with_prior(base.variant("tiny", ("perceptual",)))
  found = {}
  for name, (factor, c) in TINY.items():
    mult = (1, 2, 2, 2)[: factor.bit_length()]
    size: dict[str, Any] = {"ch": 16, "mult": mult, "blocks": 1, "mid_attention": False, "zero": True}
    found[name] = Autoencoder(
      encoder=ConvEncoder(out=2 * c, **size), bottleneck=KL(dim=c, spread=0.1), decoder=ConvDecoder(**size)
    )
  for name, (patch, c) in VITS.items():
    size: dict[str, Any] = {"width": 96, "heads": 4, "patch": patch, "depth": 3}
    found[name] = Autoencoder(
      encoder=ViTEncoder(out=2 * c, **size), bottleneck=KL(dim=c, spread=0.1), decoder=ViTDecoder(channels=3, **size)
    )
  return {name: _on(start, model, patch=2 if name.startswith("f2") else 1) for name, model in found.items()}


def _paper() -> dict[str, Experiment]:
  found = {}
  for name, (factor, c) in PAPER.items():
    made = ldm_kl.experiment("paper", factor=factor)  # pyright: ignore[reportArgumentType]
    model: Any = made.stage1.model
    model = model.clone(encoder=model.encoder.clone(out=2 * c), bottleneck=KL(dim=c))
    found[name] = _on(made, model, patch=max(16 // factor, 1))
  return found


def _on(made: Experiment, model: Autoencoder, patch: int) -> Experiment:
  """The experiment with another autoencoder, and its prior on patches of that latent."""
  assert made.stage2 is not None
  prior = made.stage2.prior.clone(backbone=made.stage2.prior.backbone.clone(patch=patch))
  return dataclasses.replace(
    made,
    name="tensor_size",
    stage1=dataclasses.replace(made.stage1, model=model),
    stage2=dataclasses.replace(made.stage2, prior=prior),
  )
