"""A network whose magnitudes stay put. EDM2: Karras, Aittala, Lehtinen, Hellsten, Aila, Laine 2024, arXiv:2312.02696.

Every layer keeps the magnitude of what it is given: kernels are normalised as they are used, and put back on their
sphere after each update (`optim.Forced`); sums and concatenations are weighed; no biases, no group norm. The rate falls
as one over the root of the step, noise levels are weighed by a learned uncertainty, and averages of any width are made
after training of the checkpoints and two power averages that were tracked:

    latents run experiments/priors/edm2.py
    latents average runs/edm2 --width 0.07 && latents evaluate runs/edm2

On ImageNet-512 latents (sd-vae, 64x64x4) S has FID 2.56 without guidance and XXL 1.91, in 63 evaluations. The paper
brings latents to a deviation of 0.5; here it is 1 and sigma twice as large (see `edm.py`).

tiny: the latents of `images/digits.py` (one stage 1 for both) and a U-Net of 32 and 64 channels; three minutes of one
CPU core. paper: EDM2-S, 280 million numbers, on f8 latents of ImageNet-512 with `images/ldm_kl.py`'s autoencoder.

Paper: FID 2.56 (S), 1.91 (XXL; both ImageNet-512 without guidance)
Shown: sharp digits, each of the class asked for, near the data in distance too.
"""

import dataclasses
from typing import Literal

from experiments.images import digits, ldm_kl
from experiments.priors.edm import GRID, PROCESS, levels
from latents.backbones import MPUNet, edm2
from latents.declare import Experiment, Stage2
from latents.diffusion import Heun
from latents.optim import Forced, PowerAverage, gamma_of
from latents.priors import UncertainFlow


def experiment(
  scale: Literal["tiny", "paper"] = "tiny",
  size: Literal["XS", "S", "M", "L", "XL", "XXL"] = "S",
  data_dir: str | None = None,
) -> Experiment:
  """size: of the network, at the paper's scale."""
  tiny = scale == "tiny"
  base = digits.experiment("tiny") if tiny else ldm_kl.experiment("paper", size=512, data_dir=data_dir)
  data = base.stage1.data
  if tiny:
    backbone = MPUNet(32, (1, 2), 1, attention=(1,), head=16, classes=data.classes)
  else:
    backbone = edm2(size, classes=data.classes, dropout=0.0 if size in ("XS", "S") else 0.1, dtype="bfloat16")
  rate = {"XS": 0.012, "S": 0.01, "M": 0.009, "L": 0.008, "XL": 0.007, "XXL": 0.0065}[size]
  prior = UncertainFlow(
    backbone=backbone,
    times=levels(-0.4, 1.0),
    shift=1.0,
    sampler=Heun(16 if tiny else 32),
    guidance=2.0 if tiny else 1.4,
    process=PROCESS,
    grid=GRID,
  )
  stage2 = Stage2(
    data=data,
    prior=prior,
    optimizer=Forced(
      lr=0.01 if tiny else rate,
      betas=(0.9, 0.99),
      warmup=50 if tiny else 4883,
      schedule="root",
      over=200 if tiny else 70_000,
    ),
    steps=980 if tiny else 1_048_576,
    batch=32 if tiny else 2048,
    ema=0.995 if tiny else 0.9999,
    averages={name: PowerAverage(gamma=gamma_of(width)) for name, width in (("narrow", 0.05), ("wide", 0.1))},
    save_every=70 if tiny else 16_384,
    keep_checkpoints=True,
    cache=True,
  )
  evaluation = dataclasses.replace(base.evaluation, average="wide")
  return dataclasses.replace(base, name="edm2", stage2=stage2, evaluation=evaluation)
