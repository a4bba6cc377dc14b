"""A cascade: a prior of small pictures, and two diffusion decoders that draw larger ones from smaller ones.

Cascaded diffusion (Ho et al. 2021, arXiv:2106.15282): each decoder is over a fixed encoder, the mean over cells, and is
told the label and how much noise its small picture has: 0 to `augment` in training, `level` in sampling, so that it
does not trust what the model below has drawn to the last pixel. The base model is the prior. Three models: the inner
autoencoder draws the largest pictures, the outer one of `Stacked`, whose signals are the inner one's small pictures,
those from smaller ones, which the prior draws.

    latents run experiments/decoders/cascade.py

tiny: digits of 32 px from 16 px from 8 px, which a prior of 16 tokens draws. paper: 256 px from 64 px from 32 px, as
CDM, on the cosine path (CDM predicts the noise, here it is the velocity). CDM's table of sizes was not at hand: the
upper networks have ADM's widths (arXiv:2105.05233), the base is a DiT-XL/2. CDM blurs what its uppermost model is
given, here all have noise.

Paper: FID 4.88 (ImageNet-256)
Shown: digits of 32 px drawn from 16 px from 8 px, all of their class; edges a little ragged
"""

import dataclasses
from typing import Literal

from experiments.images import digits, ldm_kl
from latents.autoencoders import Autoencoder, Stacked
from latents.backbones import UNet
from latents.bottlenecks import NoBottleneck
from latents.declare import Experiment, Start
from latents.decoders import FlowDecoder
from latents.diffusion import Cosine, Process
from latents.encoders import Downsample
from latents.losses import Weight
from latents.optim import Adam
from latents.priors import FlowPrior


def experiment(
  scale: Literal["tiny", "paper"] = "tiny", augment: float = 0.5, level: float = 0.1, data_dir: str | None = None
) -> Experiment:
  """augment: the most noise on the small pictures in training, 0 to 1. level: in sampling."""
  tiny = scale == "tiny"
  base = digits.experiment() if tiny else ldm_kl.experiment("paper", data_dir=data_dir)
  assert base.stage2 is not None
  adam = base.stage1.optimizer
  assert isinstance(adam, Adam)
  channels, classes = base.stage1.data.shape[-1], base.stage2.prior.classes
  process = Process() if tiny else Process(Cosine())

  def larger(factor: int, unet: UNet) -> Autoencoder:
    """Pictures from those `factor` times as small."""
    decoder = FlowDecoder(
      unet, stride=factor, channels=channels, process=process, augment=augment, level=level if augment else 0.0
    )
    return Autoencoder(encoder=Downsample(factor=factor), bottleneck=NoBottleneck(), decoder=decoder)

  if tiny:
    upper = UNet(ch=16, mult=(1, 2, 2), blocks=1, classes=classes, out=channels)
    lower = UNet(ch=16, mult=(1, 2), blocks=1, classes=classes, out=channels)
  else:
    upper = UNet(ch=192, mult=(1, 1, 2, 2, 4, 4), classes=classes, out=channels, dtype="bfloat16")
    lower = UNet(
      ch=192, mult=(1, 2, 3, 4), blocks=3, attention=(1, 2, 3), classes=classes, out=channels, dtype="bfloat16"
    )
  one = dataclasses.replace(
    base.stage1,
    model=larger(2 if tiny else 4, upper),
    losses={"flow": Weight(1.0)},
    steps=300 if tiny else 500_000,
    optimizer=dataclasses.replace(adam, eps=1e-8),
  )
  middle = dataclasses.replace(
    one,
    model=Stacked(inner=one.model.clone(), outer=larger(2, lower)),
    start=(Start(stage=one, into="inner"),),
    trained=("outer",),
  )
  prior = base.stage2.prior
  assert isinstance(prior, FlowPrior)
  backbone = prior.backbone.clone(patch=2)
  two = dataclasses.replace(base.stage2, prior=prior.clone(backbone=backbone, process=process))
  return dataclasses.replace(base, name="cascade", stage1=middle, stage2=two)
