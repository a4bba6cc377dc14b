"""Pixels by two stacks of gated convolutions. Gated PixelCNN: van den Oord et al. 2016, arXiv:1606.05328.

One stack sees the rows above, the other its own row and the first stack: no blind spot; gates of tanh and sigmoid take
the place of PixelRNN's, so that it is as good at a part of the time. A label is a vector in every gate.

    latents run experiments/raw/gated_pixelcnn.py
    latents run experiments/raw/gated_pixelcnn.py --pictures clothing --data-dir ../shared/data

tiny: digits at their own 8 px of 17 values, told their class; or photographs of clothes at 32 px, of which it draws one
alone. Clothes: 5.07 bits a number, of which a histogram a position needs 7.88 and the value before 6.08
(results/gated_pixelcnn/photographs.json), drawn as textures. paper: CIFAR-10 with the size that the paper has for
ImageNet-32, 20 layers of 5 x 5 and 384 features; rate, average and the features before the logits are ours.

Paper: 3.03 bits/dim (CIFAR-10), 3.83 (ImageNet-32), 3.57 (ImageNet-64)
Shown: 1.67 bits where a histogram a position needs 2.44, the pixel before 2.70; most digits are whole
"""

from typing import Literal

from experiments.raw import Pictures, on_pixels, pictures_of
from latents.backbones import GatedPixelCNN
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
    backbone = GatedPixelCNN(levels, shape, classes=data.classes, width=24, depth=4, size=3, hidden=48)
  else:
    backbone = GatedPixelCNN(levels, data.shape, dtype="bfloat16")
  return on_pixels(
    "gated_pixelcnn", scale, data, levels, AutoregressivePrior(backbone=backbone),
    steps=1_600 if scale == "tiny" else 200_000, photographs=1_500, batch=32 if scale == "tiny" else 128,
    slow=Adam(lr=3e-4),
    samples=16 if pictures == "digits" or scale == "paper" else 1,
  )  # fmt: skip
