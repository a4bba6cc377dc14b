"""WaveGrad: a vocoder that is led by the noise level itself, over a fixed mel encoder.

Chen, Zhang, Zen, Weiss, Norouzi, Chan 2021, arXiv:2009.00713: blocks that lengthen a mel spectrogram to the wave, told
by blocks that shorten the noisy wave, and alpha in place of the step, so that one network serves chains of any length;
trained by the absolute error of the noise. Else as `diffwave`, whose data, encoder and prior these are.

    latents run experiments/sound/wavegrad.py --data audio:FOLDER

Data: git clone https://github.com/Jakobovski/free-spoken-digit-dataset data/fsdd (CC-BY-SA 4.0)

FOLDER: as of `fsdd_codec`. tiny: a quarter of a second at 8 kHz, four blocks of 96 to 32 channels. The chain is
`diffwave`'s of 50 steps, of which time is drawn between the steps too.
paper: Base of Chen et al. (five blocks that lengthen 5, 5, 3, 2, 2 times; 15,920,993 parameters, where the paper
says 15M) at 24 kHz with 128 bands every 300 samples, 1,000 betas from 1e-6 to 0.01, 6 steps with betas of 7e-6 to 0.7
(the paper searches the digits 1 to 9 of each power of ten); windows of 2048 samples, as its FFT has, not of 1200.

Paper: MOS 4.41 with 6 steps, 4.51 with 1,000, of speech that has 4.58 (Base, its own data)
Shown: clicks at the ends; two thirds known as their digit.
"""

import dataclasses
from typing import Literal

from experiments.sound import diffwave
from latents.backbones import WaveGrad
from latents.data import Audio, source
from latents.declare import Experiment
from latents.decoders import FlowDecoder
from latents.diffusion import DDPM, Aligned, Betas, Process, Uniform
from latents.encoders import MelEncoder
from latents.evaluate import LogMel


def experiment(
  scale: Literal["tiny", "paper"] = "tiny", data: str = "audio:data/fsdd", rate: int | None = None
) -> Experiment:
  """data: audio:PATH of a folder or zip. rate: samples a second."""
  tiny = scale == "tiny"
  rate = rate or (8_000 if tiny else 24_000)
  base = diffwave.experiment(scale, data, rate)
  model, one = base.stage1.model, base.stage1
  assert isinstance(model.decoder, FlowDecoder)
  if tiny:
    backbone = WaveGrad(
      entry=128, factors=(4, 4, 2, 2), up=(96, 64, 48, 32), down=(16, 32, 48, 64),
      dilations=((1, 2, 1, 2), (1, 2, 1, 2), (1, 2, 4, 8), (1, 2, 4, 8)),
    )  # fmt: skip
    path, encoder, grid = model.decoder.process.path, model.encoder.clone(), model.decoder.grid
    assert isinstance(path, Betas)
  else:
    path, backbone = Betas(1e-6, 0.01, steps=1000), WaveGrad()
    encoder = MelEncoder(rate=rate, hop=300, window=2048, bands=128)
    grid = Aligned(path, (7e-6, 1.4e-4, 2.1e-3, 2.8e-2, 0.35, 0.7))
    sound = source(data, length=7_200, rate=rate)
    assert isinstance(sound, Audio)
    one = dataclasses.replace(one, data=sound, batch=256)
  decoder = model.decoder.clone(
    backbone=backbone,
    stride=encoder.stride,
    process=Process(path, predict="noise", error="l1", tell="level"),
    times=Uniform(),
    sampler=DDPM(6 if tiny else 1000),
    grid=grid,
    shown=(50, 6, 2) if tiny else (1000, 25, 6),
  )
  one = dataclasses.replace(
    one, model=model.clone(encoder=encoder, bottleneck=model.bottleneck.clone(), decoder=decoder)
  )
  evaluation = dataclasses.replace(base.evaluation, metrics=(LogMel(rate=rate),))
  return dataclasses.replace(base, name="wavegrad", stage1=one, evaluation=evaluation)
