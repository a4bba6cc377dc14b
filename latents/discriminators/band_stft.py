"""The multi-band, multi-resolution discriminator of complex spectra."""

import flax.linen as nn
import jax
import jax.numpy as jnp

from latents.discriminators.base import Verdict
from latents.discriminators.waves import heard, spectrum, unfold
from latents.errors import UserError
from latents.nn.weight_norm import WeightNormConv
from latents.types import Array

_LAYERS = (((3, 9), 1), ((3, 9), 2), ((3, 9), 2), ((3, 9), 2), ((3, 3), 1))  # size along (time, frequency), stride


class BandSTFT(nn.Module):
  """x [B,T,C] in [-1,1] -> one sub-network a window, its logits [B,C,frames,f,1].

  DAC (Kumar et al. 2023, arXiv:2306.06546, section 3.4, and its released code): real and imaginary parts of the STFT
  (hop a quarter) of each channel, without mean and with a peak of 0.8, cut into bands of frequency; each band has five
  convolutions of its own (normalised weights, leaky ReLU 0.1), and one more sees the bands side by side.
  windows: in samples. bands: as shares of the bins. ch: channels of all layers.
  Raises UserError for signals that are not [B,T,C] or shorter than the longest window, and for bands without a bin.
  """

  windows: tuple[int, ...] = (2048, 1024, 512)
  bands: tuple[tuple[float, float], ...] = ((0.0, 0.1), (0.1, 0.25), (0.25, 0.5), (0.5, 0.75), (0.75, 1.0))
  ch: int = 32
  dtype: str = "float32"

  @nn.compact
  def __call__(self, x: Array, *, train: bool) -> Verdict:
    """See the class; `train` changes nothing."""
    if x.ndim != 3 or x.shape[1] < max(self.windows):
      raise UserError(f"BandSTFT hears [B,T,C] of at least {max(self.windows)} samples, got {x.shape}")
    wave, logits, features = heard(x), [], []
    for window in self.windows:
      seen, ends, hidden = spectrum(wave, window), [], []
      for i, band in enumerate(self.bands):
        low, high = (int(share * seen.shape[2]) for share in band)
        if high <= low:
          raise UserError(f"BandSTFT: band {band} of a window of {window} has no bin")
        h = seen[:, :, low:high]
        for j, (size, stride) in enumerate(_LAYERS):
          conv = WeightNormConv(self.ch, size, (1, stride), self.dtype, name=f"window{window}_band{i}_conv{j}")
          h = jax.nn.leaky_relu(conv(h), 0.1)
          hidden.append(unfold(h, x))
        ends.append(h)
      out = WeightNormConv(1, (3, 3), (1, 1), self.dtype, name=f"window{window}_out")(jnp.concatenate(ends, 2))
      logits.append(unfold(out, x).astype(jnp.float32))
      features.append(tuple(hidden))
    return Verdict(tuple(logits), tuple(features))
