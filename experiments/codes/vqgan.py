"""VQGAN: a codebook learned by gradient, a perceptual loss and a judge. Esser et al. 2020, arXiv:2012.09841.

L1, LPIPS and the codebook's loss, and from step 250,001 on a PatchGAN whose weight 0.8 follows the gradients at the
decoder's last layer; the weights of the codebook's two terms in the order of the authors' code (`VQ.legacy`), which the
released models were trained with. Network, data and training are those of `vq_transformer`, which has a moving average
in place of the learned codebook; 72,141,699 parameters with K = 1,024, as released. `latents import --layout taming`
reads the authors' checkpoints.

    latents run experiments/codes/vqgan.py --scale tiny
    latents run experiments/codes/vqgan.py --scale paper --data-dir DIR --vocab 1024 --stage1.losses.lpips.path vgg.pth

tiny: 32 px digits, 64 codes of 256 entries and 4 channels, the first stages of EfficientNet-Lite0 in place of VGG, the
judge from step 350 of 500 (which has little to find: digits are rebuilt too well by then). paper: ImageNet at 256 px,
f16, K = 16,384. The prior has the size of the authors' 1.4 billion for ImageNet (48 layers of 1,536), but it is
LlamaGen's transformer (RMSNorm, SwiGLU), not GPT-2's.

Paper: rFID 7.94 (K 1024), 4.98 (K 16384); FID 15.78, 5.20 with rejection (README of taming-transformers)
Shown: 24 of 256 codes in use; samples are digits, twos, threes and nines often broken; the judge finds nothing
"""

import dataclasses
from typing import Any, Literal

from experiments.codes import vq_transformer, with_quantiser
from latents.bottlenecks import VQ
from latents.declare import Experiment
from latents.discriminators import PatchGAN
from latents.losses import L1, Adversarial, Perceptual
from latents.optim import Adam


def experiment(
  scale: Literal["tiny", "paper"] = "tiny",
  vocab: int | None = None,
  gan: float | None = None,
  data_dir: str | None = None,
) -> Experiment:
  """vocab: codebook entries K. gan: weight of the judge's term. data_dir: where TFDS sets lie (paper)."""
  tiny = scale == "tiny"
  vocab = vocab or (256 if tiny else 16_384)
  code = VQ(vocab=vocab, dim=4 if tiny else 256, legacy=True)
  made = with_quantiser(vq_transformer.experiment(scale, data_dir=data_dir), "vqgan", code, {"vq": 1.0})
  one, two = made.stage1, made.stage2
  assert two is not None
  if tiny:
    fast = Adam(lr=1e-3, betas=(0.9, 0.99), warmup=10, clip=1.0)
    losses = {"l1": L1(), "perceptual": Perceptual(weight=0.05, layers=(0, 1, 2), side=32), "gan": tiny_judge()}
    one = dataclasses.replace(one, losses=losses | {"vq": one.losses["vq"]}, steps=500, optimizer=fast)
  else:
    prior: Any = two.prior
    large = prior.clone(backbone=prior.backbone.clone(width=1536, depth=48, heads=24, remat="block"))
    two = dataclasses.replace(two, prior=large)
  if gan is not None:
    one = dataclasses.replace(one, losses={**one.losses, "gan": dataclasses.replace(one.losses["gan"], weight=gan)})
  return dataclasses.replace(made, stage1=one, stage2=two)


def tiny_judge() -> Adversarial:
  """The small PatchGAN, which the decoder feels in the last third."""
  return Adversarial(
    discriminator=PatchGAN(ch=16, layers=2), weight=0.1, clamp=10.0, optimizer=Adam(lr=2e-4, betas=(0.5, 0.9)),
    start=350, lead=50, ramp=50,
  )  # fmt: skip
