"""The encoder of a vocoder: the mel spectrogram itself (Shen et al. 2018, arXiv:1712.05884), which a decoder sounds."""

import math

import flax.linen as nn
import jax.numpy as jnp

from latents.encoders.conv import check_stride
from latents.errors import UserError
from latents.media.log_mel import FLOOR, mel_bands
from latents.types import Array


class MelEncoder(nn.Module):
  """x [B,T,C] in [-1,1] at `rate` Hz -> h [B,T/hop,bands]: how loud each mel band is; no parameters.

  Channels are averaged. 0 is silence (-70 dB), 1 a full-scale sine: 1 - log(power + 1e-7) / log(1e-7) of the bands of
  `media.log_mel`. With a generative decoder over it the autoencoder is a vocoder. UserError where T does not divide
  by the hop or is shorter than half a window, and where bands lie closer than the window's frequencies, so that one is
  empty.
  """

  rate: int = 22_050
  hop: int = 256
  window: int = 1024
  bands: int = 80

  @property
  def stride(self) -> int:
    """The hop."""
    return self.hop

  def __call__(self, x: Array, *, train: bool) -> Array:
    """See the class."""
    check_stride(x.shape[1:-1], self.hop)
    return 1 - jnp.log(band_powers(x, self.rate, self.hop, self.window, self.bands) + FLOOR) / math.log(FLOOR)


def band_powers(x: Array, rate: int, hop: int, window: int, bands: int) -> Array:
  """x [B,T,C], a multiple of `hop` long -> [B,T/hop,bands] float32: power in each mel band, 1 for a full-scale sine.

  Hann windows with the ends reflected, so that frame i is about samples [i hop, (i + 1) hop).
  """
  weights = mel_bands(rate, window, bands)
  if not (weights.sum(1) > 0).all():
    raise UserError(f"{bands} mel bands at {rate} Hz need a window of more than {window} samples: one has no frequency")
  if window < hop:
    raise UserError(f"windows of {window} samples leave out what lies between hops of {hop}")
  left = (window - hop) // 2
  right = window - hop - left
  if x.shape[1] <= right:
    raise UserError(f"a sound of {x.shape[1]} samples is too short for windows of {window}")
  wave = jnp.pad(x.astype(jnp.float32).mean(-1), ((0, 0), (left, right)), mode="reflect")
  hann = 0.5 - 0.5 * jnp.cos(2 * jnp.pi * jnp.arange(window) / window)
  starts = jnp.arange(0, x.shape[1], hop)
  spectrum = jnp.fft.rfft(wave[:, starts[:, None] + jnp.arange(window)] * (2 * hann / hann.sum()))
  power = jnp.square(spectrum.real) + jnp.square(spectrum.imag)
  return power @ jnp.asarray(weights.T, jnp.float32)
