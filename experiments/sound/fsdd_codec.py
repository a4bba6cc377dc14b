"""A neural codec of spoken digits with residual FSQ, and a transformer over its codes.

The waveform networks of SoundStream (Zeghidour et al. 2021, arXiv:2107.03312) and DAC (Kumar et al. 2023,
arXiv:2306.06546: strided 1-D convolutions, Snake, residual dilations 1, 3, 9), finite scalar quantisation
(Mentzer et al. 2023, arXiv:2309.15505) in residual stages, and an autoregressive prior as of a 'language
model of sound' (AudioLM, Borsos et al. 2022, arXiv:2209.03143).

    latents run experiments/sound/fsdd_codec.py --data audio:FOLDER

Data: git clone https://github.com/Jakobovski/free-spoken-digit-dataset data/fsdd (CC-BY-SA 4.0)

FOLDER: the Free Spoken Digit Dataset (8 kHz), or any folder or zip of audio; names that start with a digit
label it. `latents sample RUN --out x.flac` writes sound. tiny: half a second, 64 steps of 2 codes; for samples with
formants, `--stage1.steps 1500 --stage2.steps 4000`, 27 minutes of one CPU core.
paper: DAC's 44.1 kHz widths and strides with residual FSQ in place of its 9 codebooks.

Paper: no number on this data.
Shown: 11 % of the high frequencies kept; samples have formants that move, noisy: a third are known as their digit.
"""

from typing import Literal

from latents.autoencoders import Autoencoder
from latents.backbones import Transformer
from latents.bottlenecks import ResidualFSQ
from latents.data import Audio, source
from latents.declare import Evaluation, Experiment, Stage1, Stage2
from latents.decoders import WaveDecoder
from latents.encoders import WaveEncoder
from latents.losses import L1, MultiScaleSTFT
from latents.optim import Adam
from latents.priors import AutoregressivePrior


def experiment(
  scale: Literal["tiny", "paper"] = "tiny", data: str = "audio:data/fsdd", rate: int | None = None
) -> Experiment:
  """data: audio:PATH of a folder or zip. rate: samples a second."""
  tiny = scale == "tiny"
  strides = (2, 4, 8) if tiny else (2, 4, 8, 8)
  length = 4096 if tiny else 16_384
  loudness = "peak" if tiny else None  # the recordings differ by 30 dB, and a short run sees few of them
  sound = source(data, length=length, rate=rate or (8_000 if tiny else 44_100), normalize=loudness)
  assert isinstance(sound, Audio)
  levels, quantizers = ((8, 5, 5), 2) if tiny else ((8, 5, 5, 5), 9)
  vocab = 200 if tiny else 1000
  steps = length // (64 if tiny else 512)
  return Experiment(
    name="fsdd_codec",
    stage1=Stage1(
      data=sound,
      model=Autoencoder(
        encoder=WaveEncoder(ch=8 if tiny else 64, strides=strides, out=32 if tiny else 1024),
        bottleneck=ResidualFSQ(levels=levels, quantizers=quantizers),
        decoder=WaveDecoder(ch=8 if tiny else 96, strides=strides),
      ),
      losses={"l1": L1(weight=10.0), "stft": MultiScaleSTFT()},
      optimizer=Adam(lr=1e-3 if tiny else 1e-4, betas=(0.8, 0.99), warmup=50, schedule="cosine", clip=10.0),
      steps=400 if tiny else 400_000,
      batch=8 if tiny else 72,
      ema=0.99 if tiny else 0.999,
    ),
    stage2=Stage2(
      data=sound,
      prior=AutoregressivePrior(
        backbone=Transformer(
          vocab=vocab,
          width=128 if tiny else 768,
          depth=4 if tiny else 12,
          heads=4 if tiny else 12,
          length=steps * quantizers,
          groups=quantizers,
          classes=sound.classes if tiny else 0,
        ),
        guidance=1.5 if tiny else 1.0,
      ),
      optimizer=Adam(lr=1e-3 if tiny else 1e-4, betas=(0.9, 0.95), warmup=50, schedule="cosine", clip=1.0),
      steps=500 if tiny else 400_000,
      batch=8 if tiny else 64,
      ema=0.995 if tiny else 0.9999,
      cache=True,
    ),
    evaluation=Evaluation(images=300, samples=300, batch=25, classifier=tiny),
  )
