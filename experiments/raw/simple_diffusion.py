"""Diffusion on pixels in one stage. simple diffusion: Hoogeboom, Heek, Salimans 2023, arXiv:2301.11093.

The noise grows with the picture: the cosine schedule, moved by 2 log(64 / side) in log-SNR, so that the picture
averaged to 64 px has the log-SNR that it would have there. The network gives alpha eps - sigma x and is compared by the
noise, at several resolutions; most of it is a transformer at 16x16 between convolutions (U-ViT), with dropout there
alone.
SiD2 (Hoogeboom et al. 2024, arXiv:2410.19324) has another weight, sigmoid(log-SNR - b) on the data, and FID 1.38 on
ImageNet-256 and 1.50 on ImageNet-512. --weight says which of both:

    latents run experiments/raw/simple_diffusion.py
    latents run experiments/raw/simple_diffusion.py --weight scales

tiny: digits of 32 px as they are (`raw/pixels.py`), a transformer at 4x4 under three levels of convolutions, the
schedule of 8 px (the digits' own) moved to 32, and SiD2's weight with b = -3. What says the class is seen at log-SNR
below -4, which the error in the noise hardly counts: compared by it samples are digits of another class (agreement 0.28
after 2,000 steps, the schedule that of 16 px; 1.00 with SiD2's weight after 1,600), as in `priors/ddpm.py`. paper:
ImageNet-256 and 2.4 billion numbers, near the 2 billion of its largest, compared by the noise; how they are shared out
between levels is ours.

Paper: FID 2.77 (U-ViT, ImageNet-256), 1.38 (SiD2)
Shown: sharp digits, each of the class asked for; a little plainer than the data.
"""

import dataclasses
from typing import Literal

from experiments.images import digits, ldm_kl
from latents.autoencoders import Autoencoder
from latents.backbones import UNetTransformer
from latents.bottlenecks import NoBottleneck
from latents.declare import Experiment, Stage1, Stage2
from latents.decoders import IdentityDecoder
from latents.diffusion import DDPM, Process, ShiftedCosine, Sigmoid, Uniform
from latents.encoders import IdentityEncoder
from latents.optim import Adam
from latents.priors import FlowPrior, MultiScaleFlow


def experiment(
  scale: Literal["tiny", "paper"] = "tiny",
  weight: Literal["scales", "sigmoid"] | None = None,
  data_dir: str | None = None,
) -> Experiment:
  """weight: "scales", the noise at several resolutions (2023; the paper scale's); "sigmoid", SiD2's (2024; tiny's)."""
  tiny = scale == "tiny"
  weight = weight or ("sigmoid" if tiny else "scales")
  base = digits.experiment("tiny") if tiny else ldm_kl.experiment("paper", data_dir=data_dir)
  data = base.stage1.data
  side, classes = data.shape[0], data.classes
  if tiny:
    backbone = UNetTransformer(
      ch=16, mult=(1, 2, 4), blocks=1, depth=4, width=128, heads=4, classes=classes, dropout=0.1
    )
  else:
    backbone = UNetTransformer(
      ch=128,
      mult=(1, 2, 4, 8),
      blocks=2,
      depth=36,
      width=2048,
      heads=16,
      classes=classes,
      dropout=0.2,
      dtype="bfloat16",
    )
  path = ShiftedCosine(side=side, noise=8.0 if tiny else 64.0)  # digits are 8 px, drawn large
  fields = {
    "backbone": backbone,
    "times": Uniform(),
    "shift": 1.0,
    "sampler": DDPM(50 if tiny else 256),
    "guidance": 3.0 if tiny else 1.0,
  }
  if weight == "scales":
    process = Process(path, "rotation", compare="noise")
    prior = MultiScaleFlow(process=process, least=8 if tiny else 32, **fields)
  else:
    prior = FlowPrior(process=Process(path, "rotation", weight=Sigmoid(-3.0 if tiny else -1.0)), **fields)
  model = Autoencoder(encoder=IdentityEncoder(), bottleneck=NoBottleneck(), decoder=IdentityDecoder())
  one = Stage1(data=data, model=model, losses={}, steps=0, batch=32)
  stage2 = Stage2(
    data=data,
    prior=prior,
    optimizer=Adam(lr=1e-3, betas=(0.9, 0.95), warmup=50, schedule="cosine", clip=1.0)
    if tiny
    else Adam(lr=1e-4, betas=(0.9, 0.99), warmup=10_000, clip=1.0),
    steps=1600 if tiny else 500_000,
    batch=16 if tiny else 2048,
    ema=0.995 if tiny else 0.9999,
  )
  return dataclasses.replace(base, name="simple_diffusion", stage1=one, stage2=stage2)
