"""All distances between two sets of features at once, under names that say which network made them."""

from typing import NamedTuple

import numpy as np

from latents.evaluate.features import Protocol
from latents.evaluate.frechet import Moments, frechet
from latents.evaluate.kernel import kernel_distance
from latents.evaluate.precision_recall import precision_recall


class Measured(NamedTuple):
  """A value with the note without which it means nothing."""

  value: float
  protocol: str


def compare(real: np.ndarray, fake: np.ndarray, protocol: Protocol) -> dict[str, Measured]:
  """Features real [N,F], fake [M,F] -> {"frechet_<network>": ..., "kernel_<network>": ..., ...}.

  None of these is FID or KID, which are defined by the Inception network. Keys: frechet, kernel,
  kernel_std (over subsets), precision, recall; each followed by the network's name.
  """
  kernel, deviation = kernel_distance(real, fake)
  precision, recall = precision_recall(real, fake)
  values = {
    "frechet": frechet(Moments.of(real), Moments.of(fake)),
    "kernel": kernel,
    "kernel_std": deviation,
    "precision": precision,
    "recall": recall,
  }
  return {f"{key}_{protocol.network}": Measured(value, protocol.note()) for key, value in values.items()}
