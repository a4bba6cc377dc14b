"""KL autoencoder and flow-matching prior on procedural shapes over texture.

Objects with known factors over stochastic texture: what an autoencoder may drop and what it may not
(Dieleman 2025, "Generative modelling in latent space", on texture and structure). Latent diffusion
(Rombach et al. 2022, arXiv:2112.10752) otherwise.

    latents run experiments/images/shapes.py

tiny: f4 c4, 8x8x4 latents of 32 px pictures, DiT 6x128; about four minutes of one CPU core, and enough to see that it
works. For samples with objects: `--stage1.steps 2000 --stage2.steps 8000`, 25 minutes. Its rates stay below 1e-3:
above, all filters turn towards brightness at once and colours never come.

Paper: no paper has it.
Shown: one object on a texture; discs and squares as blobs, rings open, thin shapes broken.
"""

from typing import Literal

from latents.autoencoders import Autoencoder
from latents.backbones import DiT
from latents.bottlenecks import KL
from latents.data import Shapes
from latents.declare import Evaluation, Experiment, Stage1, Stage2
from latents.decoders import ConvDecoder
from latents.encoders import ConvEncoder
from latents.losses import L1, L2, Weight
from latents.optim import Adam
from latents.priors import FlowPrior


def experiment(scale: Literal["tiny", "paper"] = "tiny", kl: float = 1e-6) -> Experiment:
  tiny = scale == "tiny"
  data = Shapes(size=32, count=3000, test=300) if tiny else Shapes(size=128, count=200_000)
  ch, mult, blocks = (16, (1, 2, 2), 1) if tiny else (64, (1, 2, 4, 4), 2)
  model = Autoencoder(
    encoder=ConvEncoder(ch=ch, mult=mult, blocks=blocks, out=8, mid_attention=not tiny, zero=tiny),
    bottleneck=KL(dim=4, spread=0.1 if tiny else 1.0),
    decoder=ConvDecoder(ch=ch, mult=mult, blocks=blocks, mid_attention=not tiny, zero=tiny),
  )
  depth, width, heads = (6, 128, 4) if tiny else (12, 384, 6)
  betas = (0.9, 0.99) if tiny else (0.9, 0.999)
  backbone = DiT(depth=depth, width=width, heads=heads, patch=2, classes=data.classes)
  return Experiment(
    name="shapes",
    stage1=Stage1(
      data=data,
      model=model,
      losses={"l2": L2(), "kl": Weight(kl)} if tiny else {"l1": L1(), "kl": Weight(kl)},
      optimizer=Adam(lr=7e-4 if tiny else 2e-4, betas=betas, warmup=20, schedule="cosine", clip=1.0),
      steps=400 if tiny else 50_000,
      batch=8 if tiny else 64,
      ema=0.98 if tiny else 0.999,
    ),
    stage2=Stage2(
      data=data,
      prior=FlowPrior(backbone=backbone, guidance=2.0),
      optimizer=Adam(lr=1e-3 if tiny else 2e-4, betas=(0.9, 0.95), warmup=50, schedule="cosine", clip=1.0),
      steps=550 if tiny else 200_000,
      batch=32 if tiny else 256,
      ema=0.995 if tiny else 0.9999,
      cache=True,
    ),
    evaluation=Evaluation(images=200, samples=96) if tiny else Evaluation(),
  )
