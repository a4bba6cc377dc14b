"""The codec of `fsdd_codec` with the discriminators of DAC and feature matching.

DAC (Kumar et al. 2023, arXiv:2306.06546, and its released configuration): a multi-period discriminator (periods 2,
3, 5, 7, 11) and a multi-band STFT discriminator (windows 2048, 1024, 512), least squares, feature matching with weight
2 against 1 of the adversarial term and 15 of the spectral one. DAC sums over sub-networks, layers and windows where the
terms here are means, hence weights of 5 and 3 (sub-networks), features of 2 * 5 and 2 * 25 (layers) and 15 * 7 / ln 10
(windows; its logarithm is that of base 10). It clips the gradient of the codec at 1,000 and that of the judges' sum, of
all of them together, at 10; each judge here learns a mean of halves, so 10 and Adam's epsilon are divided by twice its
sub-networks.

    latents run experiments/sound/dac_gan.py --data audio:FOLDER

Data: git clone https://github.com/Jakobovski/free-spoken-digit-dataset data/fsdd (CC-BY-SA 4.0)

FOLDER: as of `fsdd_codec`. `--gan False` trains the same codec without them. There is no prior: DAC is a codec.
tiny: 8 kHz spoken digits, judges of a few thousand weights that join at half of 400 steps.
paper: DAC's discriminators in full, with residual FSQ in place of its codebooks and a magnitude STFT in place of its
mel spectra.

Paper: no number on these data
Shown: noisy; 25.28 dB and 9 % of the high frequencies without the judges: 200 steps with them change next to nothing
"""

import dataclasses
import math
from typing import Literal

from experiments.sound import fsdd_codec
from latents.declare import Experiment
from latents.discriminators import BandSTFT, MultiPeriod
from latents.losses import Adversarial, Loss, MultiScaleSTFT
from latents.optim import Adam


def experiment(
  scale: Literal["tiny", "paper"] = "tiny",
  data: str = "audio:data/fsdd",
  rate: int | None = None,
  gan: bool = True,
) -> Experiment:
  """data: audio:PATH of a folder or zip. rate: samples a second. gan: with the discriminators."""
  tiny = scale == "tiny"
  base = fsdd_codec.experiment(scale, data, rate)
  if tiny:
    waves, bands = MultiPeriod(periods=(2, 3, 5), widths=(8, 16, 32, 32)), BandSTFT(windows=(256, 128), ch=8)
  else:
    waves, bands = MultiPeriod(), BandSTFT()

  def judged(by: MultiPeriod | BandSTFT, count: int, layers: int) -> Adversarial:
    """DAC's sums over `count` sub-networks of `layers` hidden layers; tiny: a fiftieth."""
    share = 0.02 if tiny else 1.0
    adam = Adam(lr=1e-3, betas=(0.8, 0.99), clip=10.0)
    if not tiny:
      adam = Adam(lr=1e-4, betas=(0.8, 0.99), clip=10.0 / (2 * count), eps=1e-8 / (2 * count))
    return Adversarial(
      weight=share * count, discriminator=by, objective="lsgan", features=2.0 * layers, adaptive=False, optimizer=adam,
      start=200 if tiny else 0, lead=30 if tiny else 0, ramp=50 if tiny else 0,
    )  # fmt: skip

  losses: dict[str, Loss] = dict(base.stage1.losses)
  optimizer = base.stage1.optimizer
  assert isinstance(optimizer, Adam)
  if not tiny:
    windows = (32, 64, 128, 256, 512, 1024, 2048)
    losses = {"stft": MultiScaleSTFT(weight=15.0 * len(windows) / math.log(10), windows=windows)}
    optimizer = dataclasses.replace(optimizer, clip=1e3)
  if gan:
    losses["gan"] = judged(waves, len(waves.periods), len(waves.widths))
    losses["bands"] = judged(bands, len(bands.windows), 5 * len(bands.bands))
  one = dataclasses.replace(base.stage1, losses=losses, optimizer=optimizer)
  return dataclasses.replace(base, name="dac_gan", stage1=one, stage2=None)
