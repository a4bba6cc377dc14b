"""Real-valued tokens in random order, each by a small diffusion model. MAR: Li et al. 2024, arXiv:2406.11838.

A masked autoencoder says what it knows of the tokens that are missing; an MLP that is told that, and denoises one token
at a time, takes the place of a softmax: no codebook. README: FID 2.31 (B, 208M), 1.78 (L, 479M), 1.55 (H, 943M) at 256
px with guidance 2.9, 3.0 and 3.2.

    latents run experiments/priors/mar.py
    latents run experiments/priors/mar.py --scale paper --size H --data-dir DIR

tiny: the latents of `images/digits.py` (one stage 1 for both), 64 tokens of 4 numbers in 16 steps; the head gives the
rotation in place of the noise, of which an error near the end of the path, large after so short a training, is many
times as large in the data. paper: the latents of `images/ldm_kl.py` at f16 (256 tokens of 16; the authors' own KL-16 is
another one), 800 epochs, 256 steps of 100 (the head's kernels have the decay of the others, in the code none).

Paper: FID 2.31 (B), 1.78 (L), 1.55 (H; ImageNet-256)
Shown: clear digits of their class in 16 steps; less varied than the data (guidance 3)
"""

import dataclasses
from typing import Literal

from experiments.images import digits, ldm_kl
from latents.backbones import MaskedAutoencoder
from latents.declare import Experiment
from latents.diffusion import DDPM, Cosine, Process
from latents.optim import Adam
from latents.priors import MAR
from latents.priors.heads import DiffusionHead

# width, depth of encoder and of decoder, heads; depth and width of the MLP; guidance of the README
SIZES = {
  "B": (768, 12, 12, 6, 1024, 2.9),
  "L": (1024, 16, 16, 8, 1280, 3.0),
  "H": (1280, 20, 16, 12, 1536, 3.2),
}


def paper(size: Literal["B", "L", "H"], classes: int) -> MAR:
  width, depth, heads, layers, channels, guidance = SIZES[size]
  backbone = MaskedAutoencoder(
    width, depth, heads, length=256, classes=classes, dropout=0.1, dtype="bfloat16", remat="block"
  )
  head = DiffusionHead(16, features=width, depth=layers, width=channels)
  return MAR(backbone, head, steps=256, guidance=guidance)


def experiment(
  scale: Literal["tiny", "paper"] = "tiny", size: Literal["B", "L", "H"] = "L", data_dir: str | None = None
) -> Experiment:
  """size: of the prior (paper). data_dir: where TFDS sets lie (paper)."""
  tiny = scale == "tiny"
  base = digits.experiment("tiny") if tiny else ldm_kl.experiment("paper", data_dir=data_dir, factor=16)
  assert base.stage2 is not None
  classes = base.stage1.data.classes
  if tiny:
    backbone = MaskedAutoencoder(128, depth=2, heads=4, length=64, classes=classes, buffer=4)
    process = Process(Cosine(), "rotation", variance="learned")
    head = DiffusionHead(4, features=128, depth=3, width=128, process=process, sampler=DDPM(25, "learned"))
    two = dataclasses.replace(base.stage2, prior=MAR(backbone, head, steps=16, guidance=3.0), batch=16, steps=800)
  else:
    optimizer = Adam(lr=1e-4 * 2048 / 256, betas=(0.9, 0.95), decay=0.02, decays="kernels", clip=3.0, warmup=62_500)
    two = dataclasses.replace(
      base.stage2, prior=paper(size, classes), optimizer=optimizer, steps=500_000, batch=2048, ema=0.9999
    )
  return dataclasses.replace(base, name="mar", stage2=two)
