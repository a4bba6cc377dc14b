"""Raw signals: priors without an autoencoder."""

from typing import Literal

from latents.autoencoders import Autoencoder
from latents.bottlenecks import Symbols
from latents.data import Digits, Source, Tfds
from latents.declare import Evaluation, Experiment, Stage1, Stage2
from latents.decoders import IdentityDecoder
from latents.encoders import IdentityEncoder
from latents.optim import Adam
from latents.priors import Prior

Pictures = Literal["digits", "clothing"]


def pictures_of(scale: Literal["tiny", "paper"], pictures: Pictures, data_dir: str | None) -> tuple[Source, int]:
  """(data, the values that they have): CIFAR-10, or digits at their own 8 px, or photographs of clothes at 32 px."""
  if scale == "tiny" and pictures == "digits":
    return Digits(size=8), 17
  name = "clothing128" if scale == "tiny" else "cifar10"
  return Tfds(name, data_dir, 32, flip=scale == "tiny", labels=10), 256


def on_pixels(
  name: str, scale: Literal["tiny", "paper"], data: Source, levels: int, prior: Prior, steps: int, photographs: int,
  batch: int, slow: Adam, samples: int,
) -> Experiment:  # fmt: skip
  """A prior on the values of pixels, judged by its likelihood; few samples, each of which takes a pass a token. slow:
  the optimiser at paper scale; steps are of both scales, but of photographs at tiny scale."""
  tiny, coloured = scale == "tiny", data.shape[-1] == 3
  model = Autoencoder(
    encoder=IdentityEncoder(), bottleneck=Symbols(levels=levels, channels=data.shape[-1]), decoder=IdentityDecoder()
  )
  fast = Adam(lr=2e-3, betas=(0.9, 0.95), warmup=50, schedule="cosine", clip=1.0)
  return Experiment(
    name=name,
    stage1=Stage1(data=data, model=model, losses={}, steps=0, batch=32, normalise="none"),
    stage2=Stage2(
      data=data,
      prior=prior,
      optimizer=fast if tiny else slow,
      steps=photographs if tiny and coloured else steps,
      batch=8 if tiny and coloured else batch,
      ema=0.99 if tiny else 0.9995,
    ),
    evaluation=Evaluation(
      images=(100 if coloured else 297) if tiny else 10_000,
      samples=samples,
      classifier=tiny and not coloured,
      features=False,
    ),
  )
