"""Distances between short-time spectra, for waveforms (Engel et al. 2020, arXiv:2001.04643: the multi-scale
spectrogram loss of DDSP)."""

import dataclasses

import jax.numpy as jnp

from latents.losses.base import Reconstruction, Tree
from latents.types import Array


@dataclasses.dataclass(frozen=True)
class MultiScaleSTFT(Reconstruction):
  """Mean over window lengths of mean |S - S'| + mean |log S - log S'|, S magnitudes of the STFT.

  DDSP's with alpha = 1, but means where it has sums: times frames, bins and windows for its size.
  windows: lengths in samples, Hann, hop a quarter; a window longer than the signal is left out. floor:
  added to magnitudes inside the log, of a signal in [-1,1] with the window scaled to unit sum.
  """

  windows: tuple[int, ...] = (64, 128, 256, 512, 1024)
  floor: float = 1e-3

  def __call__(self, x: Array, x_hat: Array, *, aux: Tree = None) -> Array:
    """x, x_hat [B,T,C] in [-1,1] -> []."""
    windows = [w for w in self.windows if w <= x.shape[1]]
    terms = [self._distance(magnitudes(x, w), magnitudes(x_hat, w)) for w in windows]
    return sum(terms, jnp.float32(0)) / max(len(terms), 1)

  def _distance(self, s: Array, s_hat: Array) -> Array:
    logs = jnp.log(s + self.floor) - jnp.log(s_hat + self.floor)
    return jnp.abs(s - s_hat).mean() + jnp.abs(logs).mean()


def magnitudes(x: Array, window: int) -> Array:
  """[B,T,C] -> [B,frames,window//2+1,C] float32: |STFT|, no padding, hop window // 4, Hann of unit sum.

  The root has a small number inside, since its slope at 0 is infinite.
  """
  hop = window // 4
  hann = 0.5 - 0.5 * jnp.cos(2 * jnp.pi * jnp.arange(window) / window)
  starts = jnp.arange(0, x.shape[1] - window + 1, hop)
  frames = x.astype(jnp.float32)[:, starts[:, None] + jnp.arange(window)]
  spectrum = jnp.fft.rfft(frames * (hann / hann.sum())[:, None], axis=2)
  return jnp.sqrt(spectrum.real**2 + spectrum.imag**2 + 1e-12)
