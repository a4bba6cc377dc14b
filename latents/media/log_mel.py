"""Sound as a classifier and a distance should see it: how loud each band is over time, without the phase."""

import numpy as np

FLOOR = 1e-7  # -70 dB of a full-scale sine: quieter bands count as silent


def log_mel(x: np.ndarray, rate: int, bands: int = 32) -> np.ndarray:
  """[N,T,C] in [-1,1] at `rate` Hz -> float64 [N,frames,bands]: log of the power in triangular mel bands.

  Windows of 32 ms (Hann) every 16 ms, channels averaged; the ends are not padded, but what is shorter than one
  window is, with silence. mel(f) = 2595 log10(1 + f / 700) (O'Shaughnessy 1987); band centres are evenly spaced
  on it from 0 to rate / 2, and a triangle is 1 at its centre and 0 at its neighbours'.
  """
  window = round(0.032 * rate)
  hop = window // 2
  wave = np.asarray(x, np.float64).mean(-1)
  wave = np.pad(wave, ((0, 0), (0, max(0, window - wave.shape[1]))))
  hann = np.hanning(window + 1)[:-1]
  frames = np.lib.stride_tricks.sliding_window_view(wave, window, axis=1)[:, ::hop]
  power = np.abs(np.fft.rfft(frames * (2 * hann / hann.sum()))) ** 2  # a full-scale sine on a bin has power 1
  return np.log(power @ mel_bands(rate, window, bands).T + FLOOR)


def mel_bands(rate: int, window: int, bands: int) -> np.ndarray:
  """[bands, window//2+1]: the weight of every frequency of a real FFT in every band."""
  top = 2595 * np.log10(1 + rate / 2 / 700)
  corner = 700 * (10 ** (np.linspace(0, top, bands + 2) / 2595) - 1)
  low, centre, high = (corner[i : i + bands, None] for i in range(3))
  frequency = np.arange(window // 2 + 1) * rate / window
  return np.clip(np.minimum((frequency - low) / (centre - low), (high - frequency) / (high - centre)), 0, None)
