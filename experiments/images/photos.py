"""Stage 1 on crops of photographs, used on larger grids in stage 2: a convolutional model takes any size.

Rombach et al. 2022, arXiv:2112.10752, section 4.3.2 (convolutional sampling beyond the training
resolution). The photographs are those that the scikit-image and scikit-learn packages carry: a check
of the machinery on real pictures, too few to model.

    latents run experiments/images/photos.py

tiny: crops of 32 px in stage 1, of 64 px in stage 2; about thirteen minutes of two CPU cores.

Paper: no number.
Shown: fur and eyes kept, fine grain lost; samples are blocks of colour (five photographs to learn from).
"""

from typing import Literal

from latents.autoencoders import Autoencoder
from latents.backbones import DiT
from latents.bottlenecks import KL
from latents.data import Photos
from latents.declare import Evaluation, Experiment, Stage1, Stage2
from latents.decoders import ConvDecoder
from latents.encoders import ConvEncoder
from latents.losses import L1, L2, Weight
from latents.optim import Adam
from latents.priors import FlowPrior


def experiment(
  scale: Literal["tiny", "paper"] = "tiny", crop: int | None = None, size: int | None = None
) -> Experiment:
  """crop: pixels a side in stage 1; size: pixels a side in stage 2."""
  tiny = scale == "tiny"
  crop = crop or (32 if tiny else 128)
  size = size or 2 * crop
  ch, mult, blocks = (16, (1, 2, 2), 1) if tiny else (96, (1, 2, 4, 4), 2)
  model = Autoencoder(
    encoder=ConvEncoder(ch=ch, mult=mult, blocks=blocks, out=8, mid_attention=False, zero=tiny),
    bottleneck=KL(dim=4, spread=0.1 if tiny else 1.0),
    decoder=ConvDecoder(ch=ch, mult=mult, blocks=blocks, mid_attention=False, zero=tiny),
  )
  betas = (0.9, 0.99) if tiny else (0.9, 0.999)
  depth, width, heads = (6, 128, 4) if tiny else (12, 384, 6)
  return Experiment(
    name="photos",
    stage1=Stage1(
      data=Photos(size=crop),
      model=model,
      losses={"l2": L2(), "kl": Weight(1e-6)} if tiny else {"l1": L1(), "kl": Weight(1e-6)},
      optimizer=Adam(lr=7e-4 if tiny else 2e-4, betas=betas, warmup=20, schedule="cosine", clip=1.0),
      steps=1600 if tiny else 50_000,
      batch=8 if tiny else 64,
      ema=0.98 if tiny else 0.999,
    ),
    stage2=Stage2(
      data=Photos(size=size),
      prior=FlowPrior(backbone=DiT(depth=depth, width=width, heads=heads, patch=4 if tiny else 2)),
      optimizer=Adam(lr=1e-3 if tiny else 2e-4, betas=(0.9, 0.95), warmup=50, schedule="cosine", clip=1.0),
      steps=800 if tiny else 100_000,
      batch=32 if tiny else 256,
      ema=0.995 if tiny else 0.9999,
      cache=tiny,
    ),
    evaluation=Evaluation(images=100, samples=64, batch=32),
  )
