"""Whole pixels as a mixture of logistics. PixelCNN++: Salimans, Karpathy, Chen, Kingma 2017, arXiv:1701.05517.

Red, green and blue of a pixel come from one mixture, green's mean moves with red, blue's with both; so a picture takes
a pass a pixel, not one a value, and values that lie close are known to do so. Three scales with shortcuts, two streams.

    latents run experiments/raw/pixelcnn_pp.py
    latents run experiments/raw/pixelcnn_pp.py --pictures clothing --data-dir ../shared/data

tiny: digits at their own 8 px of 17 values, told their class; or photographs of clothes at 32 px. Clothes: 4.56 bits a
number, of which a histogram a position needs 7.88 and the value before 6.08 (results/pixelcnn_pp/photographs.json),
drawn as textures. paper: CIFAR-10, five blocks of 160 features a scale, ten components, dropout 0.5, Adam 1e-3, average
of 0.9995, batch 128, no labels, 5,000 epochs. Not as there: scales and biases are not set by a first batch, and the
rate stays (there 0.999995 of it at every step). Their code reaches 3.0 bits/dim in 10 hours of 8 GPUs (Titan X,
Maxwell), and 2.92 in five days.

Paper: 2.92 bits/dim (CIFAR-10)
Shown: 1.65 bits where a histogram a position needs 2.44, the pixel before 2.70; nearly all digits are whole
"""

from typing import Literal

from experiments.raw import Pictures, on_pixels, pictures_of
from latents.backbones import PixelCNNPlus
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
    backbone = PixelCNNPlus(data.shape, head.out, classes=data.classes, width=16, blocks=1, dropout=0.2)
  else:
    backbone = PixelCNNPlus(data.shape, head.out, dtype="bfloat16")
  return on_pixels(
    "pixelcnn_pp", scale, data, levels, AutoregressiveVectors(backbone=backbone, head=head),
    steps=2_000 if tiny else 1_953_000, photographs=1_100, batch=32 if tiny else 128,
    slow=Adam(lr=1e-3, betas=(0.95, 0.9995)),
    samples=16 if pictures == "digits" or not tiny else 4,
  )  # fmt: skip
