"""Codes learned by gradient and a prior over them: VQ-VAE (van den Oord et al. 2017, arXiv:1711.00937).

The nearest row of a codebook, straight through; the codebook follows the encoder by its own term and the encoder is
held to it by 0.25 of the same (eq. 3). While this is trained every code is as likely as another; the prior comes after
it. The paper's is a PixelCNN; here it is a transformer over the codes in raster order.

    latents run experiments/codes/vq_vae.py --scale tiny

tiny: 8x8 codes of 64 entries for 32 px digits. paper: ImageNet at 128 px in 32x32 codes of 512 entries, 42.7 times
fewer bits, by two strided convolutions and two residual blocks of 256 channels a side; Adam 2e-4, batch 128, 250,000
steps. The numbers of a code are not told: 64, as in the authors' own code (sonnet).

Paper: no number on ImageNet; CIFAR-10 4.67 bits/dim (its VAE 4.51)
Shown: a third of 64 codes in use; samples are digits of their class, eights and nines ragged
"""

import dataclasses
from typing import Literal

from experiments import imagenet
from latents.autoencoders import Autoencoder
from latents.backbones import Transformer
from latents.bottlenecks import VQ
from latents.data import Digits, Tfds
from latents.declare import Evaluation, Experiment, Stage1, Stage2
from latents.decoders import StridedDecoder
from latents.encoders import StridedEncoder
from latents.losses import L2, Weight
from latents.optim import Adam
from latents.priors import AutoregressivePrior


def experiment(
  scale: Literal["tiny", "paper"] = "tiny", vocab: int | None = None, data_dir: str | None = None
) -> Experiment:
  """vocab: codebook entries K. data_dir: where TFDS sets lie (paper)."""
  tiny = scale == "tiny"
  vocab = vocab or (64 if tiny else 512)
  data = Digits(size=32) if tiny else Tfds("imagenet2012", data_dir, 128, labels=1000)
  wide = 32 if tiny else 256
  part = {"units": wide, "dtype": "float32" if tiny else "bfloat16"}
  model = Autoencoder(
    encoder=StridedEncoder(widths=(wide, wide), **part),
    bottleneck=VQ(vocab=vocab, dim=8 if tiny else 64),
    decoder=StridedDecoder(hidden=wide, widths=(wide,), channels=data.shape[-1], **part),
  )
  if tiny:
    backbone = Transformer(vocab=vocab, width=128, depth=4, heads=4, length=64, classes=data.classes)
    fast = {"lr": 1e-3, "schedule": "cosine", "clip": 1.0}
    one = {"optimizer": Adam(betas=(0.9, 0.99), warmup=10, **fast), "steps": 300, "batch": 16, "ema": 0.98}
    two = {"optimizer": Adam(betas=(0.9, 0.95), decay=0.05, warmup=50, **fast), "steps": 650, "batch": 16, "ema": 0.99}
  else:
    backbone = Transformer(
      vocab=vocab, width=1024, depth=16, heads=16, length=1024, classes=1000, dropout=0.1, dtype="bfloat16"
    )
    one = {"optimizer": Adam(lr=2e-4), "steps": 250_000, "batch": 128, "ema": 0.0}
    slow = Adam(lr=1e-4, betas=(0.9, 0.95), decay=0.05, clip=1.0, decays="matrices")
    two = {"optimizer": slow, "steps": 1_000_000, "batch": 256, "ema": 0.9999}
  prior = AutoregressivePrior(backbone=backbone, guidance=2.0 if tiny else 1.0, top_p=0.95 if tiny else 1.0)
  made = Experiment(
    name="vq_vae",
    stage1=Stage1(data=data, model=model, losses={"l2": L2(), "vq": Weight()}, **one),
    stage2=Stage2(data=data, prior=prior, cache=True, **two),
  )
  evaluation = Evaluation(images=297, samples=500, classifier=True, features=False)
  return dataclasses.replace(made, evaluation=evaluation) if tiny else imagenet(made)
