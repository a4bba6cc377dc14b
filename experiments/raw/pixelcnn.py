"""Pixels one after the other by masked convolutions. PixelCNN: van den Oord, Kalchbrenner, Kavukcuoglu 2016.

arXiv:1601.06759. Red, green and blue in turn, each a choice among 256 values; a first layer of 7 x 7 taps and residual
blocks of 3 x 3, all of which see what comes before alone. Fast to train, with a blind spot to the upper right.

    latents run experiments/raw/pixelcnn.py
    latents run experiments/raw/pixelcnn.py --pictures clothing --data-dir ../shared/data

tiny: digits at their own 8 px of 17 values, told their class; or photographs of clothes at 32 px, of which it draws one
alone: each of its 3,072 values takes a pass. Clothes: 5.18 bits a number, of which a histogram a position needs 7.88
and the value before 6.08 (results/pixelcnn/photographs.json), drawn as textures. paper: CIFAR-10, 15 blocks of 128
features (256 between them), batch 16, no labels. Not as there: Adam in place of RMSProp, the number of steps, which is
not told, and no connections from every layer to the output.

Paper: 3.14 bits/dim (CIFAR-10); 3.5 million numbers by our count
Shown: 1.76 bits where a histogram a position needs 2.44, the pixel before 2.70; its digits are whole
"""

from typing import Literal

from experiments.raw import Pictures, on_pixels, pictures_of
from latents.backbones import PixelCNN
from latents.declare import Experiment
from latents.optim import Adam
from latents.priors import AutoregressivePrior


def experiment(
  scale: Literal["tiny", "paper"] = "tiny", pictures: Pictures = "digits", data_dir: str | None = None
) -> Experiment:
  """pictures: of the tiny scale. data_dir: where TFDS sets lie."""
  data, levels = pictures_of(scale, pictures, data_dir)
  if scale == "tiny":
    shape = data.shape[: 2 if data.shape[-1] == 1 else 3]
    backbone = PixelCNN(levels, shape, classes=data.classes, width=32, depth=6, hidden=64)
  else:
    backbone = PixelCNN(levels, data.shape, dtype="bfloat16")
  return on_pixels(
    "pixelcnn", scale, data, levels, AutoregressivePrior(backbone=backbone),
    steps=2_000 if scale == "tiny" else 500_000, photographs=1_300, batch=32 if scale == "tiny" else 16,
    slow=Adam(lr=3e-4),
    samples=16 if pictures == "digits" or scale == "paper" else 1,
  )  # fmt: skip
