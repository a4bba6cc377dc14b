"""DiffWave: a vocoder that is a diffusion decoder over a fixed mel encoder, and a prior that draws mel spectrograms.

Kong, Ping, Huang, Zhao, Catanzaro 2021, arXiv:2009.09761: 30 gated layers of dilated convolutions over the wave tell
the noise in it, led by a mel spectrogram, on a chain of 50 steps or a short one of 6. As an autoencoder: the encoder is
the mel spectrogram, without parameters; the decoder is the network; what draws spectrograms is the prior.

    latents run experiments/sound/diffwave.py --data audio:FOLDER

Data: git clone https://github.com/Jakobovski/free-spoken-digit-dataset data/fsdd (CC-BY-SA 4.0)

FOLDER: as of `fsdd_codec`. Reconstructions are with 2, 6 (the short chain) and 50 steps; PSNR says little of a vocoder,
whose phase is its own: see the distance in dB of mel bands.
tiny: a quarter of a second at 8 kHz, 40 bands every 8 ms, 8 layers of 32 channels; a DiT over the 64 frames of half a
second, four to a token (one a token, at as much compute, leaves samples that no classifier knows).
paper: Base of Kong et al. (64 channels, 30 layers, cycle 10; 2,619,971 parameters by the paper's equations, where it
says 2.64M) for LJSpeech at 22.05 kHz, 80 bands every 256 samples; no prior, as there.

Paper: MOS 4.38 with 50 steps, 4.37 with 6, of speech that has 4.52 (Base, LJSpeech)
Shown: harmonics lost; two thirds of samples known as their digit.
"""

import dataclasses
from typing import Literal

from latents.autoencoders import Autoencoder
from latents.backbones import DiffWave, DiT
from latents.bottlenecks import NoBottleneck
from latents.data import Audio, source
from latents.declare import Evaluation, Experiment, Stage1, Stage2
from latents.decoders import FlowDecoder
from latents.diffusion import DDPM, Aligned, Betas, Euler, Process, Steps
from latents.encoders import MelEncoder
from latents.evaluate import LogMel
from latents.losses import Weight
from latents.optim import Adam
from latents.priors import FlowPrior


def experiment(
  scale: Literal["tiny", "paper"] = "tiny", data: str = "audio:data/fsdd", rate: int | None = None
) -> Experiment:
  """data: audio:PATH of a folder or zip. rate: samples a second."""
  tiny = scale == "tiny"
  rate = rate or (8_000 if tiny else 22_050)
  hop, window, bands, factors = (64, 256, 40, (8, 8)) if tiny else (256, 1024, 80, (16, 16))
  length = hop * (32 if tiny else 62)
  sound = source(data, length=length, rate=rate, normalize="peak" if tiny else None)
  assert isinstance(sound, Audio)
  path = Betas(1e-4, 0.05, steps=50)
  width, layers, cycle = (32, 8, 8) if tiny else (64, 30, 10)
  decoder = FlowDecoder(
    backbone=DiffWave(width=width, layers=layers, cycle=cycle, mels=bands, factors=factors),
    stride=hop,
    channels=1,
    process=Process(path, predict="noise"),
    times=Steps(path.steps),
    sampler=DDPM(6 if tiny else path.steps),
    grid=Aligned(path, (1e-4, 1e-3, 1e-2, 0.05, 0.2, 0.5)),
    shown=(50, 6, 2),
  )
  return Experiment(
    name="diffwave",
    stage1=Stage1(
      data=sound,
      model=Autoencoder(
        encoder=MelEncoder(rate=rate, hop=hop, window=window, bands=bands),
        bottleneck=NoBottleneck(),
        decoder=decoder,
      ),
      losses={"flow": Weight(1.0)},
      optimizer=Adam(lr=2e-3, warmup=20, schedule="cosine", clip=1.0) if tiny else Adam(lr=2e-4),
      steps=1_600 if tiny else 1_000_000,
      batch=4 if tiny else 16,
      ema=0.99 if tiny else 0.9999,
    ),
    stage2=mel_prior(dataclasses.replace(sound, length=2 * length)) if tiny else None,
    evaluation=Evaluation(
      images=60 if tiny else 300, samples=200, batch=25, classifier=tiny, metrics=(LogMel(rate=rate),)
    ),
  )


def mel_prior(sound: Audio) -> Stage2:
  """A prior over spectrograms of a few dozen frames, four of which are a token."""
  return Stage2(
    data=sound,
    prior=FlowPrior(
      backbone=DiT(depth=6, width=128, heads=4, patch=4, classes=sound.classes),
      sampler=Euler(30),
      guidance=4.0,
    ),
    optimizer=Adam(lr=1e-3, betas=(0.9, 0.95), warmup=50, schedule="cosine", clip=1.0),
    steps=2_600,
    batch=32,
    ema=0.995,
    cache=True,
  )
