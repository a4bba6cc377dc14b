"""Large patches of pixels and the data as what is predicted. JiT: Li & He 2025, arXiv:2511.13720.

Data lie near a surface of few dimensions, noise does not: a network narrower than its patches (16 x 16 x 3 = 768
numbers) can give clean pixels, and neither noise nor velocity. So a plain transformer gives the data and is compared by
the velocity, (x - data) / tau with tau not below 0.05. Its patches go through 128 units first, and 32 tokens of the
class join in from the fourth block on. B/16 has FID 3.66 on ImageNet-256, H/16 1.86; predicting noise, B/16 has 372.

    latents run experiments/raw/jit.py
    latents run experiments/raw/jit.py --predict velocity

tiny: digits of 32 px in patches of 8 (16 tokens of 64 numbers), the transformer of `images/digits.py` with JiT's
parts; class agreement 1.00 (`raw/pixels.py`: 0.20 after 980 steps). paper: B/16 on ImageNet-256, 600 epochs; L and H
by --size.

Paper: FID 3.66 (B), 2.36 (L), 1.86 (H; all ImageNet-256)
Shown: sharp digits of their class from large patches, about as near the training data as held-out digits are.
"""

import dataclasses
from typing import Literal

from experiments.images import digits, ldm_kl
from latents.autoencoders import Autoencoder
from latents.backbones import DiT
from latents.bottlenecks import NoBottleneck
from latents.declare import Experiment, Stage1, Stage2
from latents.decoders import IdentityDecoder
from latents.diffusion import Clipped, Heun, Linear, LogitNormal, Process
from latents.encoders import IdentityEncoder
from latents.optim import Adam
from latents.priors import FlowPrior


def network(size: Literal["B", "L", "H"], classes: int, patch: int = 16) -> DiT:
  """The paper's table 9: 131, 459 and 953 million numbers."""
  depth, width, heads, bottleneck, start, dropout = {
    "B": (12, 768, 12, 128, 4, 0.0),
    "L": (24, 1024, 16, 128, 8, 0.0),
    "H": (32, 1280, 16, 256, 10, 0.2),
  }[size]
  return DiT(
    depth, width, heads, patch, classes=classes, norm="rms", mlp="swiglu", rope=True, qk_norm=True,
    bottleneck=bottleneck, context=32, context_from=start, dropout=dropout, dtype="bfloat16",
  )  # fmt: skip


def experiment(
  scale: Literal["tiny", "paper"] = "tiny",
  predict: Literal["data", "velocity", "noise"] = "data",
  size: Literal["B", "L", "H"] = "B",
  data_dir: str | None = None,
) -> Experiment:
  """predict: what the network gives; it is compared by the velocity. size: of the network, at the paper's scale."""
  tiny = scale == "tiny"
  base = digits.experiment("tiny") if tiny else ldm_kl.experiment("paper", data_dir=data_dir)
  data = base.stage1.data
  if tiny:
    backbone = DiT(
      6, 128, 4, 8, classes=data.classes, norm="rms", mlp="swiglu", rope=True, qk_norm=True,
      bottleneck=16, context=4, context_from=2,
    )  # fmt: skip
  else:
    backbone = network(size, data.classes)
  path = Linear(1.0 if tiny else data.shape[0] / 256)  # the paper's rule; digits are 8 px, drawn large
  process = Process(path, predict, compare="velocity")
  if predict == "data":
    process = Process(path, predict, weight=Clipped(0.05, path.noise))
  prior = FlowPrior(
    backbone=backbone,
    times=LogitNormal(0.8, 0.8),  # -0.8 in their time, which is 1 at the data
    shift=1.0,
    sampler=Heun(25 if tiny else 50),
    guidance=2.9,
    interval=(0.0, 0.9),
    process=process,
  )
  model = Autoencoder(encoder=IdentityEncoder(), bottleneck=NoBottleneck(), decoder=IdentityDecoder())
  one = Stage1(data=data, model=model, losses={}, steps=0, batch=32, normalise="none")
  stage2 = Stage2(
    data=data,
    prior=prior,
    optimizer=Adam(lr=1e-3, betas=(0.9, 0.95), warmup=50, schedule="cosine", clip=1.0)
    if tiny
    else Adam(lr=2e-4, betas=(0.9, 0.95), warmup=6255),
    steps=1500 if tiny else 750_000,
    batch=32 if tiny else 1024,
    ema=0.995 if tiny else 0.9999,
  )
  return dataclasses.replace(base, name="jit", stage1=one, stage2=stage2)
