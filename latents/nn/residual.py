"""The residual block without norms of VQ-VAE (arXiv:1711.00937), VQ-VAE-2 (1906.00446) and dVAE (2102.12092)."""

import flax.linen as nn
from jax.nn.initializers import Initializer

from latents.nn.conv import Conv, uniform_fan_in
from latents.types import Array


class Residual(nn.Module):
  """[B,*S,C] -> [B,*S,features]: x + gain * (ReLU, convolution, as often as there are `sizes`), any signal axes.

  sizes: taps an axis of each convolution; all but the last give `hidden` channels. VQ-VAE: (3, 1) and gain 1; dVAE:
  (3, 3, 3, 1) in the encoder, (1, 3, 3, 3) in the decoder, and gain 1 / layers^2, which keeps the variance of a deep
  stack where it is. start: of all kernels, see `Conv`.
  Parameters: conv1, conv2, ..; shortcut, a 1-tap convolution in place of x, where C is not `features`.
  """

  features: int
  hidden: int
  sizes: tuple[int, ...] = (3, 1)
  gain: float = 1.0
  start: Initializer = uniform_fan_in
  dtype: str = "float32"

  @nn.compact
  def __call__(self, x: Array) -> Array:
    """See the class."""
    h = x
    for k, size in enumerate(self.sizes, 1):
      width = self.features if k == len(self.sizes) else self.hidden
      h = Conv(width, size, dtype=self.dtype, start=self.start, name=f"conv{k}")(nn.relu(h))
    if x.shape[-1] != self.features:
      x = Conv(self.features, 1, dtype=self.dtype, start=self.start, name="shortcut")(x)
    return x.astype(h.dtype) + self.gain * h
