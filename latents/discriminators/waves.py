"""How the discriminators of sound take a waveform."""

import jax.numpy as jnp

from latents.types import Array


def heard(x: Array) -> Array:
  """x [B,T,C] -> [B*C,T] float32: each channel without its mean, with a peak of 0.8 (DAC's released code)."""
  x = jnp.moveaxis(x, -1, 1).reshape(-1, x.shape[1]).astype(jnp.float32)
  x = x - x.mean(-1, keepdims=True)
  return 0.8 * x / (jnp.abs(x).max(-1, keepdims=True) + 1e-9)


def fold(wave: Array, period: int) -> Array:
  """wave [B,T], T a multiple of the period -> [B,T/period,period,1]."""
  return wave.reshape(wave.shape[0], -1, period, 1)


def unfold(h: Array, x: Array) -> Array:
  """h [B*C,...] of the channels of x [B,T,C] -> [B,C,...]."""
  return h.reshape(x.shape[0], x.shape[-1], *h.shape[1:])


def spectrum(wave: Array, window: int) -> Array:
  """wave [B,T] -> [B,T / hop rounded up,window // 2 + 1,2] float32: real and imaginary parts of the STFT.

  Periodic Hann, hop window // 4, not normalised; reflected at both ends by (window - hop) // 2, at the right also to a
  multiple of the hop, so that there is one frame a hop. T is at least the window.
  """
  hop = window // 4
  side, right = (window - hop) // 2, -wave.shape[1] % hop
  wave = jnp.pad(wave, ((0, 0), (side, side + right)), mode="reflect")
  hann = 0.5 - 0.5 * jnp.cos(2 * jnp.pi * jnp.arange(window) / window)
  starts = jnp.arange(0, wave.shape[1] - window + 1, hop)
  found = jnp.fft.rfft(wave[:, starts[:, None] + jnp.arange(window)] * hann)
  return jnp.stack([found.real, found.imag], -1)
