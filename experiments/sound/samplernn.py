"""SampleRNN on raw sound: recurrent tiers over frames of samples, and an MLP for each sample, 256 linear values.

Mehri, Kumar, Gulrajani, Kumar, Jain, Sotelo, Courville, Bengio 2017, arXiv:1612.07837; through the identity
autoencoder.

    latents run experiments/sound/samplernn.py --data audio:FOLDER

Data: git clone https://github.com/Jakobovski/free-spoken-digit-dataset data/fsdd (CC-BY-SA 4.0)

FOLDER: as of `fsdd_codec`. Bits a sample stand beside those of two baselines, as of `wavenet`; they are of 256 linear
values, not those of `wavenet`. Left out: the hidden states that the paper carries from one chunk of 512 samples of a
recording to the next (sources crop at random: every example begins with the learned states, and its gradient goes
through all of it), and the clipping of single gradients to 1 (here by their norm).
tiny: half a second at 8 kHz, frames of 16 and 4 samples, width 96, labels as a tier above the first.
paper: the settings of the published code for three tiers: frames of 8 and 2 samples, width 1,024, one GRU a tier,
embeddings of 256, batches of 128 (steps and average are ours); a quarter of a second at 16 kHz. `--tiers 2`: frames of
16, three GRUs.

Paper: 1.387 bits a sample, two tiers 1.392 (Blizzard)
Shown: 2.85 bits a sample where pairs of samples need 3.82; noise with pauses, in no words: too short a training
"""

from typing import Literal

from latents.autoencoders import Autoencoder
from latents.backbones import SampleRNN
from latents.bottlenecks import Symbols
from latents.data import Audio, source
from latents.declare import Evaluation, Experiment, Stage1, Stage2
from latents.decoders import IdentityDecoder
from latents.encoders import IdentityEncoder
from latents.optim import Adam
from latents.priors import AutoregressivePrior


def experiment(
  scale: Literal["tiny", "paper"] = "tiny",
  data: str = "audio:data/fsdd",
  rate: int | None = None,
  tiers: Literal[2, 3] = 3,
) -> Experiment:
  """data: audio:PATH of a folder or zip. rate: samples a second. tiers: with that of the samples."""
  tiny = scale == "tiny"
  sound = source(data, length=4096, rate=rate or (8_000 if tiny else 16_000), normalize="peak" if tiny else None)
  assert isinstance(sound, Audio)
  if tiny:
    frames = (16, 4) if tiers == 3 else (16,)
    network = SampleRNN(256, sound.length, width=96, frames=frames, embedding=32, classes=sound.classes)
  elif tiers == 3:
    network = SampleRNN(256, sound.length)
  else:
    network = SampleRNN(256, sound.length, frames=(16,), depth=3)
  return Experiment(
    name="samplernn",
    stage1=Stage1(
      data=sound,
      model=Autoencoder(IdentityEncoder(), Symbols(levels=256), IdentityDecoder()),
      losses={},
      steps=0,
      batch=25,
    ),
    stage2=Stage2(
      data=sound,
      prior=AutoregressivePrior(backbone=network),
      optimizer=Adam(lr=2e-3, warmup=20, schedule="cosine", clip=1.0) if tiny else Adam(lr=1e-3, clip=1.0),
      steps=2_500 if tiny else 200_000,
      batch=2 if tiny else 128,
      ema=0.997 if tiny else 0.999,
      cache=False,
    ),
    evaluation=Evaluation(images=100, samples=100, batch=25, classifier=tiny),
  )
