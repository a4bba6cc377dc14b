"""SDXL's autoencoder: `ldm_kl`'s network on larger batches. Podell et al. 2023, arXiv:2307.01952.

Section 2.4: the architecture of `ldm_kl`, a batch of 256 in place of 9, and a moving average of the weights; scale
0.13025, no shift. The released weights are stage 1 of every run that is on an imported one:

    latents import hf:stabilityai/sdxl-vae --layout sdxl --name sdxl
    latents run experiments/images/sdxl_vae.py --scale paper --on runs/sdxl --data-dir DIR
    latents run experiments/images/sdxl_vae.py --data-dir ../shared/data

paper: 83,653,863 parameters; losses, learning rate and steps are those of `ldm_kl`, the paper gives none. tiny: that of
`ldm_kl` with 4 channels, twice the batch and half the steps.

Paper: PSNR 24.7 dB, SSIM 0.73, rFID 4.42 (COCO val, 256 px; 23.4, 0.69, 4.99 for SD's)
Shown: blurred (TSR 12, 325 steps); samples are colour textures, not objects
"""

import dataclasses
from typing import Literal

from experiments.images import ldm_kl
from latents.bottlenecks import KL
from latents.declare import Experiment


def experiment(
  scale: Literal["tiny", "paper"] = "tiny", data: str | None = None, data_dir: str | None = None
) -> Experiment:
  """data: tfds:NAME or folder:PATH. data_dir: where TFDS sets lie."""
  base = ldm_kl.experiment(scale, data, data_dir)
  one = base.stage1
  if scale == "paper":
    one = dataclasses.replace(one, batch=256)
  else:
    model = one.model.clone(encoder=one.model.encoder.clone(out=8), bottleneck=KL(dim=4, spread=0.1))
    gan = dataclasses.replace(one.losses["gan"], start=one.losses["gan"].start // 2)
    losses = {**one.losses, "gan": gan}
    one = dataclasses.replace(one, model=model, losses=losses, batch=2 * one.batch, steps=one.steps // 2)
  return dataclasses.replace(base, name="sdxl_vae", stage1=one)
