"""The two priors of the paper on the codes of `vq_vae2`: VQ-VAE-2 (Razavi, van den Oord, Vinyals 2019).

arXiv:1906.00446, algorithm 2 and appendix: gated convolutions with attention after every fifth layer (PixelSNAIL, Chen
et al. 2017, arXiv:1712.09763) for the top grid; for the bottom grid, which is too large for attention, gated
convolutions that are told the top's codes through residual blocks of their own. In place of `vq_vae2`'s transformer, on
the same stage 1, which is trained once for both. They have no cache: a code takes a pass.

    latents run experiments/codes/vq_vae2_pixelsnail.py --scale tiny

tiny: 4x4 and 8x8 codes of 64 entries for 32 px digits, of which a fifth is read wrong in training (1,500 pictures are
soon known by heart). paper: 32x32 and 64x64 codes of 512 for ImageNet-256: 20 layers of 512 features each, attention
after every fifth above, 20 residual blocks that read the top below. Not as there: both are trained at once, as long and
with one batch, the top has convolutions of 2 x 2 and one head and no 20 layers of 1 x 1 at its end, the bottom has no
dropout, and a tenth of the labels is dropped.

Paper: NLL 3.41 (top), 3.45 (bottom) nats a code
Shown: 2.3 bits a code (3.7 by a histogram); six digits in seven whole; unless a fifth is read wrong it overfits
"""

import dataclasses
from typing import Any, Literal

from experiments.codes import vq_vae2
from latents.backbones import GatedPixelCNN, PixelSNAILCodes
from latents.declare import Experiment
from latents.optim import Adam
from latents.priors import AutoregressivePrior, ChainPrior


def experiment(
  scale: Literal["tiny", "paper"] = "tiny", vocab: int | None = None, data_dir: str | None = None
) -> Experiment:
  """vocab: codebook entries of both grids. data_dir: where TFDS sets lie (paper)."""
  tiny = scale == "tiny"
  base = vq_vae2.experiment(scale, vocab, data_dir)
  assert base.stage2 is not None
  entries, side = vocab or (64 if tiny else 512), 4 if tiny else 32
  told: dict[str, Any] = {"classes": base.stage1.data.classes, "embed": 16 if tiny else 64}
  upper: dict[str, Any]
  lower: dict[str, Any]
  if tiny:
    upper = {"width": 32, "blocks": 2, "resnets": 2, "dropout": 0.0}
    lower = {"width": 64, "depth": 6, "size": 3, "first": 5, "hidden": 128, "above_depth": 1}
    optimizer = Adam(lr=2e-3, betas=(0.9, 0.95), warmup=50, schedule="cosine", clip=1.0)
    two = {"optimizer": optimizer, "steps": 1_100, "batch": 16, "ema": 0.99}
  else:
    upper, lower = {}, {"width": 512, "above_depth": 20}
    told |= {"dtype": "bfloat16"}
    two = {"optimizer": Adam(lr=1e-4), "steps": 1_600_000, "batch": 256, "ema": 0.9999}
  top = PixelSNAILCodes(entries, (side, side), **told, **upper)
  bottom = GatedPixelCNN(entries, (2 * side, 2 * side), above=((side, side, entries),), **told, **lower)
  draws: dict[str, Any] = {"top_p": 0.95, "corrupt": 0.2} if tiny else {}
  prior = ChainPrior(
    priors=(AutoregressivePrior(backbone=top, **draws), AutoregressivePrior(backbone=bottom, **draws)),
    grids=((side, side), (2 * side, 2 * side)),
    guidance=2.0 if tiny else 1.0,
  )
  return dataclasses.replace(
    base,
    name="vq_vae2_pixelsnail",
    stage2=dataclasses.replace(base.stage2, prior=prior, **two),
    evaluation=dataclasses.replace(base.evaluation, samples=100),
  )
