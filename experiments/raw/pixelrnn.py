"""Pixels by recurrence in two dimensions. PixelRNN: van den Oord, Kalchbrenner, Kavukcuoglu 2016, arXiv:1601.06759.

Layers of LSTM over rows, each of which sees a triangle above a pixel, or over diagonals in both directions, which see
what comes before; residual connections around each. Red, green and blue in turn, each a choice among 256 values.

    latents run experiments/raw/pixelrnn.py
    latents run experiments/raw/pixelrnn.py --kind row
    latents run experiments/raw/pixelrnn.py --pictures clothing --data-dir ../shared/data

tiny: digits at their own 8 px of 17 values, told their class; or photographs of clothes at 32 px, of which it draws one
alone. Clothes: 5.44 bits a number, of which a histogram a position needs 7.88 and the value before 6.08
(results/pixelrnn/photographs.json), drawn as textures. paper: CIFAR-10, 12 layers of 128 features, batch 16, no labels.
Not as there: Adam in place of RMSProp, the number of steps, which is not told, and no connections from every layer to
the output.

Paper: 3.00 bits/dim (diagonal), 3.07 (row), 3.14 (PixelCNN; all CIFAR-10)
Shown: 1.71 bits where a histogram a position needs 2.44, the pixel before 2.70; three digits in four are whole
"""

from typing import Literal

from experiments.raw import Pictures, on_pixels, pictures_of
from latents.backbones import PixelRNN
from latents.declare import Experiment
from latents.optim import Adam
from latents.priors import AutoregressivePrior


def experiment(
  scale: Literal["tiny", "paper"] = "tiny",
  kind: Literal["row", "diagonal"] = "diagonal",
  pictures: Pictures = "digits",
  data_dir: str | None = None,
) -> Experiment:
  """kind: of the layers. pictures: of the tiny scale. data_dir: where TFDS sets lie."""
  data, levels = pictures_of(scale, pictures, data_dir)
  if scale == "tiny":
    shape = data.shape[: 2 if data.shape[-1] == 1 else 3]
    backbone = PixelRNN(levels, shape, classes=data.classes, kind=kind, width=20, depth=3, hidden=48)
  else:
    backbone = PixelRNN(levels, data.shape, kind=kind, dtype="bfloat16")
  return on_pixels(
    "pixelrnn", scale, data, levels, AutoregressivePrior(backbone=backbone),
    steps=1_600 if scale == "tiny" else 500_000, photographs=800, batch=32 if scale == "tiny" else 16,
    slow=Adam(lr=3e-4),
    samples=16 if pictures == "digits" or scale == "paper" else 1,
  )  # fmt: skip
