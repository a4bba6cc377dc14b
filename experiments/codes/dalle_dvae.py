"""Codes by relaxation: DALL-E's discrete VAE (Ramesh et al. 2021, arXiv:2102.12092, section 2.1 and appendix A).

The encoder gives logits over the codes; the decoder sees a mixture of their vectors by Gumbel-softmax, whose
temperature falls until it is one of them. The objective is the evidence bound: the likelihood of the pixels under a
logit-Laplace distribution, and 6.6 times the KL of the logits' softmax to the uniform one. Both are means over numbers
here, so that the KL of a token is divided by the 192 numbers that it stands for. All schedules are cosines: a linear
one of the temperature tended to diverge.

    latents run experiments/codes/dalle_dvae.py --scale tiny

tiny: 8x8 codes of 64 entries for 32 px digits; the KL weighs 0.3, for with the paper's 0.034 so short a run ends with 8
of them in use. paper: 256 px in 32x32 codes of 8192 entries, temperature 1 to 1/16
within 150,000 updates, KL within 5,000, AdamW 1e-4 to 1.25e-6 within 1.2M, decay 1e-4, average 0.999, batch 512, 3M
updates; its 250M pictures from the web are ImageNet here. The prior is a class-conditional transformer over the codes,
not DALL-E's of 12 billion parameters over text and codes, which is not here.

Paper: rFID 32.01 of the release, as taming-transformers measured it (ImageNet val)
Shown: 48 of 64 codes in use; samples are digits of their class; edges grainy (1.5 times the high frequencies)
"""

import dataclasses
import math
from typing import Any, Literal

from experiments import imagenet
from latents.autoencoders import Autoencoder
from latents.backbones import Transformer
from latents.bottlenecks import Gumbel
from latents.data import Digits, Tfds
from latents.declare import Evaluation, Experiment, Stage1, Stage2
from latents.decoders import DVAEDecoder, LogitLaplaceDecoder
from latents.encoders import DVAEEncoder
from latents.losses import LogitLaplace, Weight
from latents.optim import Adam
from latents.priors import AutoregressivePrior


def experiment(
  scale: Literal["tiny", "paper"] = "tiny", vocab: int | None = None, data_dir: str | None = None
) -> Experiment:
  """vocab: codebook entries K. data_dir: where TFDS sets lie (paper)."""
  tiny = scale == "tiny"
  vocab = vocab or (64 if tiny else 8192)
  data = Digits(size=32) if tiny else Tfds("imagenet2012", data_dir, 256, labels=1000)
  part: dict[str, Any] = {"ch": 32, "mult": (1, 2, 4), "blocks": 1} if tiny else {"dtype": "bfloat16"}
  encoder, channels = DVAEEncoder(out=vocab, **part), data.shape[-1]
  model = Autoencoder(
    encoder=encoder,
    bottleneck=Gumbel(vocab=vocab, dim=16 if tiny else 128, cooling=450 if tiny else 150_000, project=False),
    decoder=LogitLaplaceDecoder(DVAEDecoder(channels=2 * channels, **part)),
  )
  numbers = math.prod(data.shape) / math.prod(n // encoder.stride for n in data.shape[:-1])  # a token stands for: 192
  kl = Weight(0.3 if tiny else 6.6 / numbers, first=0.0, over=50 if tiny else 5_000, shape="cosine")
  if tiny:
    backbone = Transformer(vocab=vocab, width=128, depth=4, heads=4, length=64, classes=data.classes)
    fast = {"schedule": "cosine", "clip": 1.0}
    one = {"optimizer": Adam(lr=2e-3, decay=1e-4, warmup=10, **fast), "steps": 600, "batch": 16, "ema": 0.98}
    two = {"optimizer": Adam(lr=1e-3, betas=(0.9, 0.95), decay=0.05, warmup=50, **fast), "steps": 650, "batch": 16}
  else:
    backbone = Transformer(
      vocab=vocab, width=1024, depth=24, heads=16, length=1024, classes=1000, dropout=0.1, dtype="bfloat16"
    )
    falling = Adam(lr=1e-4, decay=1e-4, schedule="cosine", final=1.25e-2, over=1_200_000)
    one = {"optimizer": falling, "steps": 3_000_000, "batch": 512, "ema": 0.999}
    slow = Adam(lr=1e-4, betas=(0.9, 0.95), decay=0.05, clip=1.0, decays="matrices")
    two = {"optimizer": slow, "steps": 1_500_000, "batch": 256}
  prior = AutoregressivePrior(backbone=backbone, guidance=2.0 if tiny else 1.0, top_p=0.95 if tiny else 1.0)
  made = Experiment(
    name="dalle_dvae",
    stage1=Stage1(data=data, model=model, losses={"nll": LogitLaplace(), "kl": kl}, **one),
    stage2=Stage2(data=data, prior=prior, cache=True, ema=0.99 if tiny else 0.9999, **two),
  )
  evaluation = Evaluation(images=297, samples=500, classifier=True, features=False)
  return dataclasses.replace(made, evaluation=evaluation) if tiny else imagenet(made)
