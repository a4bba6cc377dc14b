"""VA-VAE: the latent is aligned with the features of a frozen network, by a weight balanced at the encoder.

Yao, Yang and Wang 2025, arXiv:2501.01423: a linear map of z against DINOv2's grid, by cosine and by distance matrix
with margins; the weight is the ratio of gradients at the encoder's last kernel times 0.1. f16c32 on ImageNet: rFID
0.28, LightningDiT-XL FID 2.11 after 64 epochs, 1.35 after 800.

    latents run experiments/shaping/va_vae.py

tiny: the digits of `digits`; the teacher is another autoencoder of this project (f8c4, the same steps), trained first
as a stage of its own: it shows the mechanism, it is no DINOv2. paper: f16c32 with the adaptive GAN; features of
EfficientNet-Lite0 stand for DINOv2's, whose weights no package carries. As in `ldm_kl`, sums of
the authors' code are means: the KL weight 1e-6 is 1e-6 / TSR (24), the clamp 1e8 of the alignment's weight 1e8 / N.

Paper: rFID 0.28; FID 2.11 (64 epochs), 1.35 (800) with LightningDiT-XL
Shown: samples as those of `digits`; cosine and distance terms fall, the teacher is no DINOv2 and wins nothing
"""

import dataclasses
from typing import Literal

from experiments.images import digits, ldm_kl
from latents.backbones import dit_xl
from latents.bottlenecks import KL
from latents.declare import Experiment, Stage1
from latents.decoders import ConvDecoder
from latents.encoders import ConvEncoder
from latents.losses import conversions
from latents.regularisers import Alignment, EfficientNetTeacher, StageTeacher

KL_WEIGHT = conversions.of_sums(1e-6, 16 * 16 * 32, among=ldm_kl.NUMBERS)


def experiment(
  scale: Literal["tiny", "paper"] = "tiny", weight: float = 0.1, data_dir: str | None = None
) -> Experiment:
  """weight: of the alignment, times the adaptive ratio."""
  tiny = scale == "tiny"
  base = digits.experiment() if tiny else ldm_kl.experiment("paper", data_dir=data_dir, kl=KL_WEIGHT)
  assert base.stage2 is not None
  one, two = base.stage1, base.stage2
  if not tiny:
    mult = (1, 1, 2, 2, 4)
    model = one.model.clone(
      encoder=ConvEncoder(ch=128, mult=mult, attention=(4,), out=64, dtype="bfloat16"),
      bottleneck=KL(dim=32),
      decoder=ConvDecoder(ch=128, mult=mult, attention=(4,), dtype="bfloat16"),
    )
    one = dataclasses.replace(one, model=model)
    prior = two.prior.clone(backbone=dit_xl(1, classes=two.data.classes, dtype="bfloat16"))
    two = dataclasses.replace(two, prior=prior)
  if tiny:
    aligned = Alignment(weight=weight, teacher=StageTeacher(stage=teacher(one)))
  else:
    judge = EfficientNetTeacher(layer=3, side=224)
    aligned = Alignment(weight=weight, teacher=judge, clamp=1e8 / ldm_kl.NUMBERS)
  losses = {**one.losses, "vf": aligned}
  return dataclasses.replace(base, name="va_vae", stage1=dataclasses.replace(one, losses=losses), stage2=two)


def teacher(one: Stage1) -> Stage1:
  """An autoencoder of half the resolution, on the same data."""
  mult = (1, 2, 2, 2)
  model = one.model.clone(
    encoder=one.model.encoder.clone(mult=mult),
    bottleneck=KL(dim=4),
    decoder=one.model.decoder.clone(mult=mult),
  )
  return dataclasses.replace(one, model=model)
