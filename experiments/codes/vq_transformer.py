"""Codes and a transformer over them: VQGAN (Esser, Rombach, Ommer 2020, arXiv:2012.09841) with an EMA codebook.

The codebook is a running k-means (van den Oord et al. 2017, arXiv:1711.00937, appendix A) that is carried
beside the parameters, not trained by gradient; the prior is LlamaGen's transformer (Sun et al. 2024,
arXiv:2406.06525) with a KV cache. taming's README states rFID 4.98 for f16 and K = 16384 on ImageNet val;
LlamaGen-B (111M) FID 5.46 at 256 px.

    latents run experiments/codes/vq_transformer.py --scale tiny

tiny: 64 codes of 64 entries for 32 px digits, five minutes. paper: f16, 256 codes of 16,384 for ImageNet-256.

Paper: rFID 4.98 (f16, K 16384); FID 5.46 (LlamaGen-B).
Shown: 64 codes all in use; samples are digits of the class that was asked for.
"""

from typing import Literal

from experiments import imagenet
from latents.autoencoders import Autoencoder
from latents.backbones import Transformer
from latents.bottlenecks import EMAVQ
from latents.data import Digits, Tfds
from latents.declare import Evaluation, Experiment, Stage1, Stage2
from latents.decoders import ConvDecoder
from latents.encoders import ConvEncoder
from latents.losses import L1, L2, Adversarial, LPIPSLoss, Weight
from latents.optim import Adam
from latents.priors import AutoregressivePrior


def experiment(
  scale: Literal["tiny", "paper"] = "tiny", vocab: int | None = None, data_dir: str | None = None
) -> Experiment:
  """vocab: codebook entries K. data_dir: where TFDS sets lie (paper)."""
  return tiny(vocab or 64) if scale == "tiny" else paper(vocab or 16_384, data_dir)


def paper(vocab: int, data_dir: str | None) -> Experiment:
  data = Tfds("imagenet2012", data_dir, 256, labels=1000)
  rate = 4.5e-6 * 96
  gan = Adversarial(weight=0.8, start=250_001, clamp=1e4, optimizer=Adam(lr=rate, betas=(0.5, 0.9)))
  mult = (1, 1, 2, 2, 4)
  made = Experiment(
    name="vq_transformer",
    stage1=Stage1(
      data=data,
      model=Autoencoder(
        encoder=ConvEncoder(ch=128, mult=mult, attention=(4,), out=256, dtype="bfloat16"),
        bottleneck=EMAVQ(vocab=vocab, dim=256, restart=0.03),
        decoder=ConvDecoder(ch=128, mult=mult, attention=(4,), dtype="bfloat16"),
      ),
      losses={"l1": L1(), "lpips": LPIPSLoss(net="vgg"), "commit": Weight(0.25), "gan": gan},
      optimizer=Adam(lr=rate, betas=(0.5, 0.9)),
      steps=500_000,
      batch=96,
      ema=0.9999,
    ),
    stage2=Stage2(
      data=data,
      prior=AutoregressivePrior(
        backbone=Transformer(
          vocab=vocab, width=768, depth=12, heads=12, length=256, classes=1000, dropout=0.1, dtype="bfloat16"
        ),
        guidance=2.0,
      ),
      optimizer=Adam(lr=1e-4, betas=(0.9, 0.95), decay=0.05, clip=1.0, decays="matrices"),
      steps=1_500_000,
      batch=256,
      ema=0.9999,
      cache=True,
    ),
  )
  return imagenet(made)


def tiny(vocab: int) -> Experiment:
  # A code that is not used must lose its count within the run: 0.95^100, not 0.99^100, is below the threshold.
  data = Digits(size=32)
  return Experiment(
    name="vq_transformer",
    stage1=Stage1(
      data=data,
      model=Autoencoder(
        encoder=ConvEncoder(ch=16, mult=(1, 2, 2), blocks=1, out=32, mid_attention=False, zero=True),
        bottleneck=EMAVQ(vocab=vocab, dim=8, decay=0.95, restart=0.1, kmeans=10),
        decoder=ConvDecoder(ch=16, mult=(1, 2, 2), blocks=1, channels=1, mid_attention=False, zero=True),
      ),
      losses={"l2": L2(), "commit": Weight(0.25)},
      optimizer=Adam(lr=1e-3, betas=(0.9, 0.99), warmup=10, schedule="cosine", clip=1.0),
      steps=250,
      batch=16,
      ema=0.98,
    ),
    stage2=Stage2(
      data=data,
      prior=AutoregressivePrior(
        backbone=Transformer(vocab=vocab, width=128, depth=4, heads=4, length=64, classes=data.classes),
        guidance=2.0,
        top_p=0.95,
      ),
      optimizer=Adam(lr=1e-3, betas=(0.9, 0.95), decay=0.05, warmup=50, schedule="cosine", clip=1.0),
      steps=650,
      batch=16,
      ema=0.99,
      cache=True,
    ),
    evaluation=Evaluation(images=297, samples=500, classifier=True, features=False),
  )
