"""Speech from a word, as translation into merged codes: DiscreTalk (Hayashi, Watanabe 2020, arXiv:2005.05525).

A VQ-VAE trained with a GAN turns speech into symbols of one codebook, SentencePiece merges them as if they were the
characters of a text (`latents.recodes.SentencePiece`), a transformer writes the subwords, and the VQ-VAE's decoder
speaks them. The codec is on the waveform networks of `fsdd_codec`, with an EMA codebook in place of residual FSQ. The
authors' transformer reads a text with an encoder of its own; here it is told the word as a label.

    latents run experiments/sound/discretalk.py --data audio:FOLDER

Data: git clone https://github.com/Jakobovski/free-spoken-digit-dataset data/fsdd (CC-BY-SA 4.0)

FOLDER: as of `fsdd_codec`. tiny: half a second at 8 kHz, 64 symbols of 64 kinds as at most 64 of 256 subwords, six bits
every 8 ms; without the GAN, which 200 steps do not notice (`dac_gan`).
paper: 24 kHz (JSUT), a symbol every 256 samples, 256 subwords, with DAC's judges. How many kinds of symbols the paper
has was not found: 128 here.

Paper: subwords and the right rate of symbols help most; near the VQ-VAE's own reconstructions in listening tests.
Shown: 64 symbols as 44 subwords; samples are noisy words, two in five known as theirs; the codec sets the limit
"""

from typing import Literal

from latents.autoencoders import Autoencoder
from latents.backbones import Transformer
from latents.bottlenecks import EMAVQ
from latents.data import Audio, source
from latents.declare import Evaluation, Experiment, Stage1, Stage2
from latents.decoders import WaveDecoder
from latents.discriminators import BandSTFT, MultiPeriod
from latents.encoders import WaveEncoder
from latents.losses import L1, Adversarial, Loss, MultiScaleSTFT, Weight
from latents.optim import Adam
from latents.priors import AutoregressivePrior
from latents.recodes import SentencePiece


def experiment(
  scale: Literal["tiny", "paper"] = "tiny", data: str = "audio:data/fsdd", rate: int | None = None, units: int = 256
) -> Experiment:
  """data: audio:PATH of a folder or zip. rate: samples a second. units: subwords."""
  tiny = scale == "tiny"
  strides = (4, 4, 4) if tiny else (4, 4, 4, 4)
  length = 4096 if tiny else 2**17  # half a second; five and a half
  sound = source(data, length=length, rate=rate or (8_000 if tiny else 24_000), normalize="peak" if tiny else None)
  assert isinstance(sound, Audio)
  vocab, count = (64, length // 64) if tiny else (128, length // 256)
  losses: dict[str, Loss] = {"stft": MultiScaleSTFT(), "l1": L1(), "commit": Weight(0.25)}
  if not tiny:
    judges = {"gan": MultiPeriod(), "bands": BandSTFT()}
    adam = Adam(lr=1e-4, betas=(0.5, 0.9))
    for name, judge in judges.items():
      losses[name] = Adversarial(
        discriminator=judge, objective="lsgan", features=2.0, adaptive=False, start=100_000, optimizer=adam
      )
  return Experiment(
    name="discretalk",
    stage1=Stage1(
      data=sound,
      model=Autoencoder(
        encoder=WaveEncoder(ch=8 if tiny else 64, strides=strides, out=32 if tiny else 512),
        bottleneck=EMAVQ(vocab=vocab, dim=8, decay=0.95 if tiny else 0.99, restart=0.1, kmeans=10),
        decoder=WaveDecoder(ch=8 if tiny else 64, strides=strides),
      ),
      losses=losses,
      optimizer=Adam(lr=2e-3 if tiny else 1e-4, betas=(0.8, 0.99), warmup=30, schedule="cosine", clip=10.0),
      steps=800 if tiny else 400_000,
      batch=4 if tiny else 64,
      ema=0.98 if tiny else 0.999,
    ),
    stage2=Stage2(
      data=sound,
      prior=AutoregressivePrior(
        backbone=Transformer(
          vocab=units + 1,
          width=128 if tiny else 512,
          depth=4 if tiny else 6,
          heads=4 if tiny else 8,
          length=count,
          places=count,
          classes=sound.classes if tiny else 0,
          dropout=0.0 if tiny else 0.1,
        ),
        guidance=1.5 if tiny else 1.0,
        top_p=0.95,
      ),
      optimizer=Adam(lr=1e-3, betas=(0.9, 0.95), decay=0.05, warmup=50, schedule="cosine", clip=1.0),
      steps=600 if tiny else 200_000,
      batch=16 if tiny else 64,
      ema=0.99 if tiny else 0.9999,
      cache=True,
      recode=SentencePiece(length=count, vocab=units),
    ),
    evaluation=Evaluation(images=300, samples=300, batch=25, classifier=tiny),
  )
