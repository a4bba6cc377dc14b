"""REPA: an early block of the denoiser is aligned with the features of a frozen network while the prior is trained.

Yu et al. 2024, arXiv:2410.06940: -mean cos(head(h_8), DINOv2), weight 0.5, SiT-XL/2 on SD-VAE latents: FID 5.9 without
guidance at 4M steps, and what SiT-XL/2 reaches after 7M steps is reached after 400k.

    latents run experiments/priors/repa.py

tiny: `digits` with the second of six blocks aligned with the latents of another autoencoder of this project (that of
`va_vae`'s teacher, trained first). paper: `ldm_kl`'s DiT-XL/2, the eighth block, EfficientNet-Lite0's features in place
of DINOv2's, which no package carries. The teacher reads signals, so latents are not cached.

Paper: FID 5.9 at 4M steps (SiT-XL/2 without guidance 8.3 at 7M)
Shown: samples as those of `digits` at the same length; with so small a teacher nothing is won (0.964 without)
"""

import dataclasses
from typing import Literal

from experiments.images import digits, ldm_kl
from experiments.shaping import va_vae
from latents.declare import Experiment
from latents.regularisers import REPA, EfficientNetTeacher, StageTeacher


def experiment(
  scale: Literal["tiny", "paper"] = "tiny", weight: float = 0.5, data_dir: str | None = None
) -> Experiment:
  """weight: of the alignment."""
  tiny = scale == "tiny"
  base = digits.experiment() if tiny else ldm_kl.experiment("paper", data_dir=data_dir)
  assert base.stage2 is not None
  if tiny:
    loss = REPA(
      weight=weight, teacher=StageTeacher(stage=va_vae.teacher(base.stage1)), tap="backbone/blocks_1", width=128
    )
  else:
    loss = REPA(weight=weight, teacher=EfficientNetTeacher(layer=3, side=224), tap="backbone/blocks_7")
  two = dataclasses.replace(base.stage2, losses={"repa": loss}, cache=False)
  return dataclasses.replace(base, name="repa", stage2=two)
