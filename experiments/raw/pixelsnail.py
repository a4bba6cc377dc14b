"""Convolutions and attention to all that comes before. PixelSNAIL: Chen, Mishra, Rohaninejad, Abbeel 2017.

arXiv:1712.09763. The mixture of logistics of PixelCNN++; blocks of gated convolutions, which know what is near, each
followed by one head of attention, which finds what is far.

    latents run experiments/raw/pixelsnail.py
    latents run experiments/raw/pixelsnail.py --pictures clothing --data-dir ../shared/data

tiny: digits at their own 8 px of 17 values, told their class; or photographs of clothes at 32 px. Clothes: 4.70 bits a
number, of which a histogram a position needs 7.88 and the value before 6.08 (results/pixelsnail/photographs.json),
drawn as textures. paper: CIFAR-10, twelve blocks of four and 256 features, ten components, dropout 0.5, Adam 1e-3,
average of 0.9995, batch 64 (theirs is 8 a GPU, of a number that is not told), steps of ours, no labels. Not as there:
scales and biases are not set by a first batch, and the rate stays (there 0.999998 of it at every step).

Paper: 2.85 bits/dim (CIFAR-10), 3.80 (ImageNet-32), 3.52 (ImageNet-64)
Shown: 1.66 bits where a histogram a position needs 2.44, the pixel before 2.70; most digits are whole
"""

from typing import Literal

from experiments.raw import Pictures, on_pixels, pictures_of
from latents.backbones import PixelSNAIL
from latents.declare import Experiment
from latents.optim import Adam
from latents.priors import AutoregressiveVectors
from latents.priors.heads import LogisticMixture


def experiment(
  scale: Literal["tiny", "paper"] = "tiny", pictures: Pictures = "digits", data_dir: str | None = None
) -> Experiment:
  """pictures: of the tiny scale. data_dir: where TFDS sets lie."""
  data, levels = pictures_of(scale, pictures, data_dir)
  tiny = scale == "tiny"
  head = LogisticMixture(dim=data.shape[-1], components=5 if tiny else 10, levels=levels)
  if tiny:
    backbone = PixelSNAIL(data.shape, head.out, classes=data.classes, width=24, blocks=2, resnets=2, dropout=0.1)
  else:
    backbone = PixelSNAIL(data.shape, head.out, dtype="bfloat16")
  return on_pixels(
    "pixelsnail", scale, data, levels, AutoregressiveVectors(backbone=backbone, head=head),
    steps=5_000 if tiny else 1_000_000, photographs=600, batch=32 if tiny else 64,
    slow=Adam(lr=1e-3, betas=(0.95, 0.9995)),
    samples=16 if pictures == "digits" or not tiny else 4,
  )  # fmt: skip
