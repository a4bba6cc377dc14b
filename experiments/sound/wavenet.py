"""WaveNet on raw sound: a prior over the samples themselves, 256 symbols by the mu-law.

van den Oord, Dieleman, Zen, Simonyan, Vinyals, Graves, Kalchbrenner, Senior, Kavukcuoglu 2016, arXiv:1609.03499: causal
convolutions of two taps with dilations 1, 2, 4, ..., gated; labels in every gate (section 2.5). Features that lead it
in time (text, spectrograms) are left out. The autoencoder is the identity.

    latents run experiments/sound/wavenet.py --data audio:FOLDER
    latents run experiments/sound/wavenet.py --data audio:FOLDER --stage2.steps 14000 --stage2.ema 0.999

Data: git clone https://github.com/Jakobovski/free-spoken-digit-dataset data/fsdd (CC-BY-SA 4.0)

FOLDER: as of `fsdd_codec`. Bits a sample stand beside what a histogram a position and one a value of the sample before
need ("Bits by ..." on the page). Samples are drawn with a cache, a step of every layer a sample.
tiny: half a second at 8 kHz, two times dilations 1 to 256, which see 128 ms; three minutes of one core, in which it
learns to murmur. The second command (20 minutes) learns words.
paper: five times dilations 1 to 512 with 32, 32 and 512 channels, which see 320 ms at 16 kHz (the paper has no widths:
these are the default of ibab/tensorflow-wavenet; how it is trained is ours); 109 speakers in subfolders, as VCTK's.
Mehri et al. (`samplernn`) measured a WaveNet of 40 layers: 1.480 bits a sample of Blizzard, of 256 linear values.

Paper: MOS 4.21 where it is led by text (North American English); no likelihood
Shown: words after 14,000 steps, half known as theirs; pairs need 5.22 bits; after 2,500: 4.37, murmur
"""

from typing import Literal

from latents.autoencoders import Autoencoder
from latents.backbones import WaveNet
from latents.bottlenecks import Symbols
from latents.data import Audio, source
from latents.declare import Evaluation, Experiment, Stage1, Stage2
from latents.decoders import IdentityDecoder
from latents.encoders import IdentityEncoder
from latents.optim import Adam
from latents.priors import AutoregressivePrior


def experiment(
  scale: Literal["tiny", "paper"] = "tiny", data: str = "audio:data/fsdd", rate: int | None = None
) -> Experiment:
  """data: audio:PATH of a folder or zip. rate: samples a second."""
  tiny = scale == "tiny"
  length = 4096 if tiny else 16_384
  sound = source(data, length=length, rate=rate or (8_000 if tiny else 16_000), normalize="peak" if tiny else None)
  assert isinstance(sound, Audio)
  if tiny:
    network = WaveNet(vocab=256, length=length, skip=64, cycle=9, stacks=2, classes=sound.classes)
  else:
    network = WaveNet(vocab=256, length=length, classes=109)
  model = Autoencoder(IdentityEncoder(), Symbols(levels=256, law="mu"), IdentityDecoder())
  return Experiment(
    name="wavenet",
    stage1=Stage1(data=sound, model=model, losses={}, steps=0, batch=25),
    stage2=Stage2(
      data=sound,
      prior=AutoregressivePrior(backbone=network),
      optimizer=Adam(lr=3e-3, warmup=20, schedule="cosine", clip=1.0) if tiny else Adam(lr=1e-3),
      steps=2_500 if tiny else 100_000,
      batch=1 if tiny else 8,
      ema=0.997 if tiny else 0.999,
      cache=False,
    ),
    evaluation=Evaluation(images=100, samples=100, batch=25, classifier=tiny),
  )
