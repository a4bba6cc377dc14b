"""A transformer over real numbers. GIVT: Tschannen, Eastwood, Mentzer 2023, arXiv:2312.02116.

No quantiser: the elements of a sequence are the vectors of a VAE's latent, in raster order, each a mixture of 16
Gaussians of which the transformer gives weights, means and deviations. The likelihood is exact, of a density. In
sampling deviations shrink by 0.95, and guidance is of densities (p_c^(1+w) p_u^-w with w = 0.4: scale 1.4).

    latents run experiments/priors/givt.py --scale tiny

tiny: on the latents of `images/digits.py` (one stage 1 for both), 64 elements of 4 numbers, 4 blocks of width 128,
drawn with deviations x 0.9 and guidance 2.
paper: the causal one on 16 x 16 latents of 16 numbers (`ldm_kl` at f16; the paper's VAE is of its own make, with a
mean squared error and beta 5e-5), 24 layers of 1,024 (304 million), Adam 1e-3, batch 8,192, 500 epochs. Not as
there: attention's chances are not dropped, and attention and norms have biases.

Paper: FID 3.35 with deviations x 0.95 and guidance (ImageNet-256, causal)
Shown: digits, nine in ten of their class (eight at guidance 1.4, deviations x 0.95); the density is exact
"""

import dataclasses
from typing import Literal

from experiments.images import digits, ldm_kl
from latents.backbones import VectorTransformer
from latents.declare import Experiment
from latents.optim import Adam
from latents.priors import AutoregressiveVectors
from latents.priors.heads import GaussianMixture


def experiment(scale: Literal["tiny", "paper"] = "tiny", data_dir: str | None = None) -> Experiment:
  """data_dir: where TFDS sets lie (paper)."""
  tiny = scale == "tiny"
  base = digits.experiment() if tiny else ldm_kl.experiment("paper", data_dir=data_dir, factor=16)
  assert base.stage2 is not None
  dim, classes = (4, base.stage2.data.classes) if tiny else (16, base.stage2.data.classes)
  head = GaussianMixture(dim=dim, components=8 if tiny else 16)
  if tiny:
    backbone = VectorTransformer(
      width=128, depth=4, heads=4, length=64, width_in=dim, out=head.out, classes=classes, dropout=0.1
    )
    optimizer = Adam(lr=1e-3, betas=(0.9, 0.95), decay=1e-4, warmup=50, schedule="cosine", clip=1.0)
  else:
    backbone = VectorTransformer(
      width=1024, depth=24, heads=16, length=256, width_in=dim, out=head.out, classes=classes, dropout=0.2,
      remat="block", dtype="bfloat16",
    )  # fmt: skip
    # big_vision's decay of 1e-4 is not multiplied by the rate: with AdamW it is 0.1
    optimizer = Adam(lr=1e-3, betas=(0.9, 0.95), decay=0.1, decays="kernels", warmup=7_800, schedule="cosine", clip=1.0)
  temperature, guidance = (0.9, 2.0) if tiny else (0.95, 1.4)
  prior = AutoregressiveVectors(backbone=backbone, head=head, temperature=temperature, guidance=guidance)
  steps, batch = (900, 32) if tiny else (78_000, 8192)
  two = dataclasses.replace(base.stage2, prior=prior, optimizer=optimizer, steps=steps, batch=batch)
  return dataclasses.replace(base, name="givt", stage2=two)
