"""How far sounds are apart as they are heard: between log mel spectrograms, without the phase."""

import dataclasses
import math
from typing import ClassVar

import jax.numpy as jnp

from latents.encoders.mel import band_powers
from latents.evaluate.paired.base import MeanMetric
from latents.evaluate.sums import Tree
from latents.media.log_mel import FLOOR
from latents.types import Array


@dataclasses.dataclass(frozen=True)
class LogMel(MeanMetric):
  """mean |10 log10(P + 1e-7) - 10 log10(P' + 1e-7)| in dB over frames and mel bands, of sounds at `rate` Hz.

  P: power in `bands` bands in windows of 32 ms every 8 ms, 1 for a full-scale sine. What is left over at the end of a
  sound, less than 8 ms, is not heard. A vocoder (WaveGrad, arXiv:2009.00713, section 4: "log-mel spectrogram mean
  absolute error") is to be judged by it, not by PSNR: it draws a phase of its own.
  """

  kinds: ClassVar[tuple[str, ...]] = ("audio",)

  rate: int = 22_050
  bands: int = 40

  @property
  def name(self) -> str:
    """The key of the result."""
    return "log_mel_db"

  def each(self, x: Array, x_hat: Array, aux: Tree) -> Array:
    """[B,T,C] twice -> [B] in dB."""
    hop = round(0.008 * self.rate)
    levels = [
      jnp.log(band_powers(wave[:, : wave.shape[1] // hop * hop], self.rate, hop, 4 * hop, self.bands) + FLOOR)
      for wave in (x, x_hat)
    ]
    return 10 / math.log(10) * jnp.abs(levels[0] - levels[1]).mean((1, 2))
