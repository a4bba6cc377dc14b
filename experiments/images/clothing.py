"""Latent diffusion on photographs of clothes: the run of the README's front page, on two CPU cores.

Stage 1 as LDM's KL-f8 (Rombach et al. 2022, arXiv:2112.10752) with LPIPS and without a GAN; stage 2 LightningDiT (Yao &
Wang 2025, arXiv:2501.01423) with guidance. 3,068 training photographs of 10 classes at 64 px
(alexeygrigorev/clothing-dataset-small, CC0), prepared as the TFDS set clothing128.

    latents run experiments/images/clothing.py --scale tiny --data-dir ../shared/data
    latents run experiments/images/clothing.py --scale paper --data-dir ../shared/data --lpips WEIGHTS

tiny: the same path in four minutes of one core, too short for more than outlines. paper: 10,000 steps of the
autoencoder and 8,000 of the prior, 0.53 s each of one core (median), 2 h 40 min; it may be stopped and goes on (the
row's seconds have an hour in which it was halted, and other jobs beside it). WEIGHTS: LPIPS v0.1 of SqueezeNet. The
judge of the class is an SVC on EfficientNet-Lite0 features of real photographs.

Paper: no number
Shown: seven in ten are of the class asked for; shoes, hats often shapeless; the nearest photographs are others.
"""

from typing import Literal

from latents.autoencoders import Autoencoder
from latents.backbones import DiT
from latents.bottlenecks import KL
from latents.data import Tfds
from latents.declare import Evaluation, Experiment, Stage1, Stage2
from latents.decoders import ConvDecoder
from latents.diffusion import Process
from latents.encoders import ConvEncoder
from latents.evaluate.samples import ClassAgreement, EfficientNetFeatures, Novelty
from latents.losses import L1, LPIPSLoss, Perceptual, Weight
from latents.optim import Adam
from latents.priors import FlowPrior


def experiment(
  scale: Literal["tiny", "paper"] = "tiny", data_dir: str | None = None, lpips: str | None = None
) -> Experiment:
  """data_dir: where TFDS sets lie. lpips: a file of LPIPS(squeeze) weights (paper)."""
  tiny = scale == "tiny"
  data = Tfds("clothing128", data_dir, 64, labels=10)
  ch, mult, dim = (16, (1, 2, 2, 2), 8) if tiny else (32, (1, 2, 4, 4), 8)
  depth, width, heads, dropout = (6, 128, 4, 0.0) if tiny else (10, 256, 8, 0.1)
  near = EfficientNetFeatures(side=128)
  return Experiment(
    name="clothing",
    stage1=Stage1(
      data=data,
      model=Autoencoder(
        encoder=ConvEncoder(ch=ch, mult=mult, blocks=1, out=2 * dim, mid_attention=False, zero=True),
        bottleneck=KL(dim=dim, spread=0.1),
        decoder=ConvDecoder(ch=ch, mult=mult, blocks=1, mid_attention=False, zero=True),
      ),
      losses={
        "l1": L1(),
        "lpips": Perceptual(weight=0.05, layers=(0, 1, 2)) if tiny else LPIPSLoss(weight=0.5, path=lpips or ""),
        "kl": Weight(1e-6 if tiny else 1e-5),
      },
      optimizer=Adam(lr=7e-4, betas=(0.9, 0.99), warmup=20, schedule="cosine", final=0.05, clip=1.0),
      steps=700 if tiny else 10_000,
      batch=4 if tiny else 8,
      ema=0.98 if tiny else 0.998,
    ),
    stage2=Stage2(
      data=data,
      prior=FlowPrior(
        backbone=DiT(
          depth, width, heads, patch=2, classes=10, norm="rms", mlp="swiglu", rope=True, qk_norm=True, dropout=dropout
        ),
        process=Process(direction=1.0),
        label_drop=0.15,
        guidance=3.0 if tiny else 4.0,
      ),
      optimizer=Adam(lr=1e-3 if tiny else 5e-4, betas=(0.9, 0.95), warmup=50, schedule="cosine", clip=1.0),
      steps=1_600 if tiny else 8_000,
      batch=16 if tiny else 64,
      ema=0.99 if tiny else 0.999,
      cache=True,
    ),
    evaluation=Evaluation(
      images=200 if tiny else 713,
      samples=200 if tiny else 500,
      batch=50,
      metrics=(ClassAgreement(features=near), Novelty(features=near), Novelty()),
    ),
  )
