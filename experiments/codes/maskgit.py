"""Codes filled in eight steps. MaskGIT: Chang, Zhang, Jiang, Liu, Freeman 2022, arXiv:2202.04200.

A bidirectional transformer learns to fill in masked codes of a VQGAN; samples begin with all of them masked, and keep
those that are surest, with noise on what is sure, by a cosine schedule. The paper counts 227M parameters for both
stages; the README has rFID 2.28 and FID 6.06 at 256 px (the paper 6.18 in 8 steps).

    latents run experiments/codes/maskgit.py --scale tiny
    latents run experiments/codes/maskgit.py --scale paper --data-dir DIR --stage1.losses.lpips.path vgg.pth

tiny: the tokenizer of `vq_transformer` (one stage 1 for both), 64 codes of 64 entries in 8 steps. paper: ImageNet at
256 px, f16, 256 codes of 1,024, encoder and decoder without attention; LPIPS in place of ResNet's features, no entropy
of the codes, and strided convolutions where the code takes means. The paper drops no labels; here 0.1 are. The
least share that is masked in training is one code (the code's configuration says min_masking_rate 0.5, of which the
paper knows nothing).

Paper: FID 6.18 in 8 steps, rFID 2.28 (ImageNet-256)
Shown: clear digits of their class in 8 steps of 64 codes; less varied than the data
"""

import dataclasses
from typing import Any, Literal

from experiments.codes import vq_transformer
from latents.backbones import MaskedTransformer
from latents.bottlenecks import VQ
from latents.declare import Experiment
from latents.discriminators import StyleGAN
from latents.losses import L2, Adversarial, LPIPSLoss, Weight, conversions
from latents.optim import Adam
from latents.priors import MaskedPrior


def experiment(
  scale: Literal["tiny", "paper"] = "tiny", steps: int | None = None, data_dir: str | None = None
) -> Experiment:
  """steps: of sampling. data_dir: where TFDS sets lie (paper)."""
  tiny = scale == "tiny"
  made = vq_transformer.experiment(scale, data_dir=data_dir)
  one, two = made.stage1, made.stage2
  assert two is not None
  classes = one.data.classes
  if tiny:
    backbone = MaskedTransformer(vocab=64, width=128, depth=4, heads=4, length=64, classes=classes)
    prior = MaskedPrior(backbone=backbone, steps=steps or 8, guidance=2.0)
    two = dataclasses.replace(two, prior=prior, steps=800)
    return dataclasses.replace(made, name="maskgit", stage2=two)
  backbone = MaskedTransformer(
    vocab=1024, width=768, depth=24, heads=16, length=256, classes=classes, dropout=0.1, dtype="bfloat16"
  )
  two = dataclasses.replace(
    two,
    prior=MaskedPrior(backbone=backbone, steps=steps or 8),
    optimizer=Adam(lr=1e-4, betas=(0.9, 0.96), decay=0.045, warmup=5_000),
    steps=2_000_000,
  )
  return dataclasses.replace(made, name="maskgit", stage1=tokenizer(one), stage2=two)


def tokenizer(one: Any) -> Any:
  """The paper's VQGAN: its own judge, no attention, two blocks a level in the decoder too. Its pictures are in [0,1],
  where squares are a quarter of ours."""
  model, plain = one.model, {"attention": (), "mid_attention": False}
  encoder, decoder = model.encoder.clone(**plain), model.decoder.clone(blocks=1, **plain)
  model = model.clone(encoder=encoder, bottleneck=VQ(vocab=1024, dim=256), decoder=decoder)
  judge = Adversarial(
    discriminator=StyleGAN(), objective="nonsaturating", adaptive=False, weight=0.1, r1=conversions.penalty(10.0),
    optimizer=Adam(lr=1e-4, betas=(0.0, 0.99)),
  )  # fmt: skip
  losses = {"l2": L2(weight=0.25), "lpips": LPIPSLoss(weight=0.1, net="vgg"), "vq": Weight(1.0), "gan": judge}
  optimizer = Adam(lr=1e-4, betas=(0.0, 0.99))
  return dataclasses.replace(one, model=model, losses=losses, optimizer=optimizer, steps=1_000_000, batch=256)
