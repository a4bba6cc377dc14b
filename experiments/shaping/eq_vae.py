"""EQ-VAE: the decoder must decode the turned and shrunk latent to the turned and shrunk signal.

Kouzelis et al. 2025, arXiv:2502.09509, eq. 4: half of the passes decode tau(z) towards tau(x), tau a rotation by 90
degrees and a change of scale; the gradient flows through tau(z) into the encoder. The paper fine-tunes SD-VAE for 5
epochs of OpenImages (rFID 0.82, PSNR 25.95 dB) and finds DiT-XL/2 to train 7 times faster on it.

    latents run experiments/shaping/eq_vae.py

tiny: the autoencoder of `digits`, its decoder wrapped, trained on for as many steps again; then its prior. paper: that
of `ldm_kl`, trained on for 5 epochs of ImageNet; three scales in place of 24 (a program has a copy of the decoder for
each).

Paper: rFID 0.82, PSNR 25.95 dB (SD-VAE fine-tuned); DiT-XL/2 trains 7 times faster
Shown: 29.06 dB before; the prior's held-out loss is 0.336 in place of 0.403; samples are digits, softer
"""

import dataclasses
from typing import Literal

from experiments.images import digits, ldm_kl
from latents.declare import Experiment, Start
from latents.decoders import Equivariant


def experiment(scale: Literal["tiny", "paper"] = "tiny", rate: float = 0.5, data_dir: str | None = None) -> Experiment:
  """rate: share of the passes that are transformed."""
  base = digits.experiment() if scale == "tiny" else ldm_kl.experiment("paper", data_dir=data_dir)
  model = base.stage1.model
  decoder = Equivariant(inner=model.decoder.clone(), rate=rate, scales=(0.25, 0.5, 0.75))
  parts = (("encoder", "encoder"), ("bottleneck", "bottleneck"), ("decoder", "decoder/inner"))
  one = dataclasses.replace(
    base.stage1,
    model=model.clone(decoder=decoder),
    start=tuple(Start(stage=base.stage1, source=source, into=into) for source, into in parts),
    steps=base.stage1.steps if scale == "tiny" else 5 * 1_281_167 // base.stage1.batch,
  )
  return dataclasses.replace(base, name="eq_vae", stage1=one)
