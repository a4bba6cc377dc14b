"""The autoencoder of Stable Diffusion 3 and FLUX: f8 with 16 channels. Esser et al. 2024, arXiv:2403.03206.

The network of `ldm_kl` without the two 1x1 convolutions round the latent; FLUX.1 (Black Forest Labs 2024) has the same
with weights of its own: scale 0.3611, shift 0.1159 (1.5305, 0.0609 of SD3's). The released weights are stage 1 of every
run that is on an imported one:

    latents import hf:black-forest-labs/FLUX.1-schnell --layout flux --name flux
    latents run experiments/images/flux_vae.py --scale paper --on runs/flux --data-dir DIR
    latents run experiments/images/flux_vae.py --data-dir ../shared/data

paper: 83,819,683 parameters; losses, batch, learning rate and steps are those of `ldm_kl`, the releases give none, with
the KL weight for this latent's size. tiny: that of `ldm_kl` with 16 channels and without the convolutions.

Paper: no number.
Shown: sharper than `ldm_kl` (TSR 3), fine grain lost; samples are noisy colour textures, not objects
"""

import dataclasses
from typing import Literal

from experiments.images import ldm_kl
from latents.bottlenecks import KL
from latents.declare import Experiment

CHANNELS = 16


def experiment(
  scale: Literal["tiny", "paper"] = "tiny", data: str | None = None, data_dir: str | None = None
) -> Experiment:
  """data: tfds:NAME or folder:PATH. data_dir: where TFDS sets lie."""
  weight = 1e-6 * (32 * 32 * CHANNELS) / ldm_kl.NUMBERS if scale == "paper" else None
  base = ldm_kl.experiment(scale, data, data_dir, kl=weight)
  model = base.stage1.model
  model = model.clone(
    encoder=model.encoder.clone(out=2 * CHANNELS),
    bottleneck=KL(dim=CHANNELS, spread=1.0 if scale == "paper" else 0.1, projected=False),
    decoder=model.decoder.clone(project=False),
  )
  return dataclasses.replace(base, name="flux_vae", stage1=dataclasses.replace(base.stage1, model=model))
