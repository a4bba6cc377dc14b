"""DC-AE: pictures at a 32nd to a 128th of their size. Chen, Cai, Chen, Xie, Yang, Tang, Li, Lu, Han 2024.

arXiv:2410.10733. Strided convolutions stand beside shortcuts without parameters (space to channel, then means; and
back), so that a deeper autoencoder begins as good as a shallower one; there is no KL term. Training has three phases:
1, low resolution, the whole model with L1 + LPIPS; 2, high resolution, the layers at the latent alone, the same losses
("latent adaptation"); 3, low resolution, the decoder's head alone, and a PatchGAN ("local refinement"). Each phase is
a stage that begins with the one before.

    latents run experiments/images/dc_ae.py --scale tiny --data-dir ../shared/data
    latents run experiments/images/dc_ae.py --scale paper --factor 64 --data-dir DIR

tiny: photographs, f8c32 (TSR 6), 32 and 64 px, the first stages of EfficientNet-Lite0 in place of VGG; the prior at
64 px. paper: f32c32, f64c128 or f128c512 (TSR 96) by --factor, 256 and 512 px; 323,356,460, 676,896,140 and
1,120,682,252 parameters (diffusers' AutoencoderDC has as many). AdamW's numbers are those of reports on the paper
(rate, decay, beta of each phase); weights of losses, steps and batches are ours: the training code is not released.
The paper's prior is UViT-H on f64 (FID 3.01 at 512 px); here DiT-XL/1.

Paper: rFID 0.22 (f64c128, ImageNet 512 px; SD-VAE brought to f64: 16.84).
Shown: objects known, fine grain lost (9 % of the high frequencies); samples are colour textures, not objects
"""

import dataclasses
from typing import Literal

from experiments import imagenet
from latents.autoencoders import Autoencoder
from latents.backbones import DiT, dit_xl
from latents.bottlenecks import NoBottleneck
from latents.data import Tfds, source
from latents.declare import Evaluation, Experiment, Stage1, Stage2, Start
from latents.decoders import DCDecoder
from latents.discriminators import PatchGAN
from latents.encoders import DCEncoder
from latents.losses import L1, Adversarial, LPIPSLoss, Perceptual
from latents.optim import Adam
from latents.priors import FlowPrior

AT_THE_LATENT = ("encoder/conv_out", "decoder/conv_in")
HEAD = ("decoder/norm_out", "decoder/conv_out")


def experiment(
  scale: Literal["tiny", "paper"] = "tiny",
  data: str | None = None,
  data_dir: str | None = None,
  factor: Literal[32, 64, 128] = 64,
  shortcut: bool = True,
) -> Experiment:
  """data: tfds:NAME or folder:PATH. data_dir: where TFDS sets lie. factor: f, at paper scale. shortcut: the residual
  autoencoding; without it the ablation of table 1."""
  make = tiny if scale == "tiny" else paper
  return make(data, data_dir, factor, shortcut)


def three_phases(first: Stage1, high: Stage1, last: Stage1) -> Stage1:
  """Phase 3, which begins with phase 2, which begins with phase 1."""
  second = dataclasses.replace(high, model=first.model, start=(Start(stage=first),), trained=AT_THE_LATENT)
  return dataclasses.replace(last, model=first.model, start=(Start(stage=second),), trained=HEAD)


def paper(data: str | None, data_dir: str | None, factor: int, shortcut: bool) -> Experiment:
  def images(size: int) -> Tfds:
    if data:
      return source(data, size=size, data_dir=data_dir)  # pyright: ignore[reportReturnType]
    return Tfds("imagenet2012", data_dir, size, labels=1000)

  more, low, high = {32: 0, 64: 1, 128: 2}[factor], images(256), images(512)
  wide, deep = (2048,) * more, (2,) * more
  levels = tuple(range(3, 6 + more))
  model = Autoencoder(
    encoder=DCEncoder(
      widths=(128, 256, 512, 512, 1024, 1024, *wide), depths=(0, 4, 8, 2, 2, 2, *deep), out=factor**2 // 32,
      attention=levels, shortcut=shortcut, remat=True, dtype="bfloat16",
    ),
    bottleneck=NoBottleneck(),
    decoder=DCDecoder(
      widths=(128, 256, 512, 512, 1024, 1024, *wide), depths=(0, 5, 10, 2, 2, 2, *deep), attention=levels,
      norms=("batch",) * 3 + ("rms",) * len(levels), acts=("relu",) * 3 + ("silu",) * len(levels), shortcut=shortcut,
      remat=True, dtype="bfloat16",
    ),
  )  # fmt: skip
  losses = {"l1": L1(), "lpips": LPIPSLoss(weight=0.25, net="vgg")}
  first = Stage1(
    data=low, model=model, losses=losses, optimizer=Adam(lr=6.4e-5, decay=0.1), steps=200_000, batch=256, ema=0.9999
  )
  gan = Adversarial(weight=0.5, ramp=1, clamp=1e4, optimizer=Adam(lr=5.4e-5, betas=(0.5, 0.9)))
  last = dataclasses.replace(first, losses=losses | {"gan": gan}, optimizer=Adam(lr=5.4e-5, betas=(0.5, 0.9)))
  second = dataclasses.replace(first, data=high, optimizer=Adam(lr=1.6e-5, decay=1e-3), steps=20_000, batch=64)
  two = Stage2(
    data=high,
    prior=FlowPrior(
      backbone=dit_xl(1, classes=low.classes, dtype="bfloat16"), guidance=1.5 if low.classes else 1.0
    ),
    optimizer=Adam(lr=1e-4), steps=500_000, batch=1024, ema=0.9999, cache=True,
  )  # fmt: skip
  stage1 = three_phases(first, second, dataclasses.replace(last, steps=50_000))
  return imagenet(Experiment(name="dc_ae", stage1=stage1, stage2=two))


def tiny(data: str | None, data_dir: str | None, factor: int, shortcut: bool) -> Experiment:
  low, high = (source(data or "tfds:tiny_imagenet20", size=size, data_dir=data_dir) for size in (32, 64))
  levels: dict = {"widths": (16, 32, 64, 64), "attention": (2, 3), "head": 16, "shortcut": shortcut}
  model = Autoencoder(
    encoder=DCEncoder(depths=(0, 1, 2, 1), out=32, **levels),
    bottleneck=NoBottleneck(),
    decoder=DCDecoder(
      depths=(0, 1, 2, 1), norms=("batch",) * 2 + ("rms",) * 2, acts=("relu",) * 2 + ("silu",) * 2, **levels
    ),
  )
  losses = {"l1": L1(), "perceptual": Perceptual(weight=0.05, layers=(0, 1, 2))}
  adam = Adam(lr=1e-3, betas=(0.9, 0.99), decay=0.01, warmup=20, schedule="cosine", final=0.05, clip=1.0)
  first = Stage1(data=low, model=model, losses=losses, optimizer=adam, steps=1200, batch=16, ema=0.98)
  judge = PatchGAN(ch=16, layers=2)
  gan = Adversarial(
    discriminator=judge, weight=0.1, start=50, ramp=50, lead=50, clamp=10.0, optimizer=Adam(lr=2e-4, betas=(0.5, 0.9))
  )
  gentle = dataclasses.replace(adam, lr=3e-4, decay=0.001)
  second = dataclasses.replace(first, data=high, optimizer=gentle, steps=150, batch=8)
  last = dataclasses.replace(
    first, losses=losses | {"gan": gan}, optimizer=dataclasses.replace(gentle, betas=(0.5, 0.9), decay=0.0), steps=250
  )
  return Experiment(
    name="dc_ae",
    stage1=three_phases(first, second, last),
    stage2=Stage2(
      data=high,
      prior=FlowPrior(
        backbone=DiT(depth=6, width=128, heads=4, patch=1, classes=high.classes),
        guidance=3.0 if high.classes else 1.0,
      ),
      optimizer=Adam(lr=1e-3, betas=(0.9, 0.95), warmup=50, schedule="cosine", clip=1.0),
      steps=600,
      batch=16,
      ema=0.99,
      cache=True,
    ),
    evaluation=Evaluation(images=200, samples=200, batch=50),
  )
