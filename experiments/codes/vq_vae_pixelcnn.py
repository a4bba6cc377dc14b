"""The prior of the paper on the codes of `vq_vae`: VQ-VAE (van den Oord et al. 2017, arXiv:1711.00937), section 3.1.

A Gated PixelCNN (van den Oord et al. 2016, arXiv:1606.05328) in place of `vq_vae`'s transformer, on the same stage 1,
which is trained once for both: at the same place each code is told what lies near it on the grid, not where it stands
in a line. It has no cache: a code takes a pass.

    latents run experiments/codes/vq_vae_pixelcnn.py --scale tiny

tiny: 8x8 codes of 64 entries for 32 px digits. paper: 32x32 codes of 512 for ImageNet-128. The paper does not say how
large its prior is; here it is Gated PixelCNN's own for pictures of 32 px, 20 layers of 5 x 5 and 384 features; how it
is trained is ours.

Paper: no number
Shown: 0.97 bits a code where a histogram a position needs 1.80; digits, some lose a stroke
"""

import dataclasses
from typing import Literal

from experiments.codes import vq_vae
from latents.backbones import GatedPixelCNN
from latents.declare import Experiment
from latents.optim import Adam
from latents.priors import AutoregressivePrior


def experiment(
  scale: Literal["tiny", "paper"] = "tiny", vocab: int | None = None, data_dir: str | None = None
) -> Experiment:
  """vocab: codebook entries K. data_dir: where TFDS sets lie (paper)."""
  tiny = scale == "tiny"
  base = vq_vae.experiment(scale, vocab, data_dir)
  assert base.stage2 is not None
  entries, classes = vocab or (64 if tiny else 512), base.stage1.data.classes
  if tiny:
    backbone = GatedPixelCNN(entries, (8, 8), classes=classes, embed=16, width=64, depth=6, size=3, first=5, hidden=128)
    optimizer = Adam(lr=2e-3, betas=(0.9, 0.95), warmup=50, schedule="cosine", clip=1.0)
    two = {"optimizer": optimizer, "steps": 700, "batch": 16, "ema": 0.99}
  else:
    backbone = GatedPixelCNN(entries, (32, 32), classes=classes, embed=64, dtype="bfloat16")
    two = {"optimizer": Adam(lr=3e-4), "steps": 500_000, "batch": 128, "ema": 0.9995}
  prior = AutoregressivePrior(backbone=backbone, guidance=2.0 if tiny else 1.0, top_p=0.95 if tiny else 1.0)
  return dataclasses.replace(
    base,
    name="vq_vae_pixelcnn",
    stage2=dataclasses.replace(base.stage2, prior=prior, **two),
    evaluation=dataclasses.replace(base.evaluation, samples=100),
  )
