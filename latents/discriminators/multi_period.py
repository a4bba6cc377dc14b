"""The multi-period discriminator: a waveform, folded into rows of a few lengths."""

import flax.linen as nn
import jax
import jax.numpy as jnp

from latents.discriminators.base import Verdict
from latents.discriminators.waves import fold, heard, unfold
from latents.errors import UserError
from latents.nn.weight_norm import WeightNormConv
from latents.types import Array


class MultiPeriod(nn.Module):
  """x [B,T,C] in [-1,1] -> one sub-network a period p, its logits [B,C,t,p,1].

  HiFi-GAN (Kong et al. 2020, arXiv:2010.05646, section 2.3) with DAC's details (Kumar et al. 2023, arXiv:2306.06546,
  and its released code): the channels are heard one by one, without mean and with a peak of 0.8; the wave, reflected at
  its end to a multiple of p (by a whole p where it is one), is seen as [T/p,p]; convolutions with normalised weights
  along the first axis alone, 5 wide, stride 3 but for the last, leaky ReLU 0.1. widths: of the layers.
  Raises UserError for signals that are not [B,T,C] or not longer than the longest period.
  """

  periods: tuple[int, ...] = (2, 3, 5, 7, 11)
  widths: tuple[int, ...] = (32, 128, 512, 1024, 1024)
  dtype: str = "float32"

  @nn.compact
  def __call__(self, x: Array, *, train: bool) -> Verdict:
    """See the class; `train` changes nothing."""
    if x.ndim != 3 or x.shape[1] <= max(self.periods):
      raise UserError(f"MultiPeriod hears [B,T,C] of more than {max(self.periods)} samples, got {x.shape}")
    wave, logits, features = heard(x), [], []
    for period in self.periods:
      padded = jnp.pad(wave, ((0, 0), (0, period - wave.shape[1] % period)), mode="reflect")
      h, hidden = fold(padded, period), []
      for i, width in enumerate(self.widths):
        stride = 3 if i < len(self.widths) - 1 else 1
        conv = WeightNormConv(width, (5, 1), (stride, 1), self.dtype, name=f"period{period}_conv{i}")
        h = jax.nn.leaky_relu(conv(h), 0.1)
        hidden.append(unfold(h, x))
      out = WeightNormConv(1, (3, 1), (1, 1), self.dtype, name=f"period{period}_out")(h)
      logits.append(unfold(out, x).astype(jnp.float32))
      features.append(tuple(hidden))
    return Verdict(tuple(logits), tuple(features))
