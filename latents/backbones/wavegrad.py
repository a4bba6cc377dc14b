"""WaveGrad: from a mel spectrogram up to the wave, led by what is made of the noisy wave on its way down.

Chen et al. 2021, arXiv:2009.00713, section 3 and figures 3 to 5.
"""

import flax.linen as nn
import jax.numpy as jnp

from latents.backbones.diffwave import check_times, mel_of
from latents.errors import UserError
from latents.nn.conv import nearest
from latents.nn.convolve import FlaxConv
from latents.nn.sharding import constrain
from latents.nn.time import frequencies
from latents.types import Array, Cond

SCALE = 5000.0  # of the noise level in its encoding
SLOPE = 0.2
DOWN = (1, 2, 4)  # dilations on the way down


class WaveGrad(nn.Module):
  """x [B,T,C], t [B] in [0,1], cond -> [B,T,out] float32; exactly 0 at the start (the paper's last layer is not).

  t is the noise level alpha (`Process(tell="level")`), of which a position encoding is added within each FiLM.
  cond["latent"] [B,T/f,E], a mel spectrogram, goes through `entry` channels and blocks that make it factors[i] times as
  long, f = prod(factors), with `up[i]` channels and `dilations[i]` of their four convolutions. The wave goes through
  `down[0]` channels and blocks that shorten it by the same factors from the last to the second, with `down[i]`
  channels; what is as long as the output of a block scales and shifts that. The defaults are the Base model, of 24 kHz
  with a frame every 12.5 ms. out: None = C. UserError where sizes do not fit or no spectrogram is given.
  """

  entry: int = 768
  factors: tuple[int, ...] = (5, 5, 3, 2, 2)
  up: tuple[int, ...] = (512, 512, 256, 128, 128)
  down: tuple[int, ...] = (32, 128, 128, 256, 512)
  dilations: tuple[tuple[int, ...], ...] = ((1, 2, 1, 2), (1, 2, 1, 2), (1, 2, 4, 8), (1, 2, 4, 8), (1, 2, 4, 8))
  out: int | None = None
  dtype: str = "float32"

  @property
  def conditions(self) -> tuple[str, ...]:
    """Names of what it reads of a condition."""
    return ("latent",)

  @property
  def classes(self) -> int:
    """None."""
    return 0

  @nn.compact
  def __call__(self, x: Array, t: Array, cond: Cond | None, *, train: bool = False) -> Array:
    """See the class."""
    del train  # no dropout
    check_times(self, t)
    if len({len(sizes) for sizes in (self.factors, self.up, self.down, self.dilations)}) > 1:
      raise UserError("WaveGrad's factors, up, down and dilations are as many as one another")
    mel, last = mel_of(self, cond, x), len(self.up) - 1
    h = conv(self.down[0], 5, self.dtype, "down_0")(x)
    films = []
    for i, width in enumerate(self.up[::-1]):
      if i:
        h = Down(self.down[i], self.factors[last + 1 - i], self.dtype, name=f"down_{i}")(h)
      films.append(FiLM(width, self.dtype, name=f"film_{i}")(h, t))
    h = conv(self.entry, 3, self.dtype, "entry")(mel)
    for i, width in enumerate(self.up):
      h = Up(width, self.factors[i], self.dilations[i], self.dtype, name=f"up_{i}")(h, *films[last - i])
    zeros = nn.initializers.zeros
    return conv(self.out or x.shape[-1], 3, self.dtype, "conv_out", init=zeros)(h).astype(jnp.float32)


class Down(nn.Module):
  """[B,T,C] -> [B,T/factor,width]: every `factor`-th sample, three dilated convolutions, and a shortcut of one tap."""

  width: int
  factor: int
  dtype: str

  @nn.compact
  def __call__(self, x: Array) -> Array:
    """See the class."""
    x = x[:, :: self.factor]
    h = x
    for i, dilation in enumerate(DOWN):
      h = conv(self.width, 3, self.dtype, f"conv_{i}", dilation)(leaky(h))
    return constrain(h + conv(self.width, 1, self.dtype, "shortcut")(x))


class FiLM(nn.Module):
  """h [B,T,C], level [B] -> (shift, scale), each [B,T,width]: of a convolution of h, and the noise level."""

  width: int
  dtype: str

  @nn.compact
  def __call__(self, h: Array, level: Array) -> tuple[Array, Array]:
    """See the class."""
    channels = h.shape[-1]
    h = leaky(conv(channels, 3, self.dtype, "conv_in")(h))
    h = h + frequencies(SCALE * level, channels)[:, None].astype(h.dtype)
    shift, scale = jnp.split(conv(2 * self.width, 3, self.dtype, "conv_out")(h), 2, -1)
    return shift, scale


class Up(nn.Module):
  """[B,n,C] -> [B,n*factor,width]: two residual halves of two dilated convolutions, the first on `factor` times as
  many frames as came in; before all but the first shift + scale * h."""

  width: int
  factor: int
  dilations: tuple[int, ...]
  dtype: str

  @nn.compact
  def __call__(self, x: Array, shift: Array, scale: Array) -> Array:
    """See the class."""

    def turn(h: Array, i: int) -> Array:
      return conv(self.width, 3, self.dtype, f"conv_{i}", self.dilations[i])(h)

    def told(h: Array) -> Array:
      return leaky(shift + scale * h)

    h = turn(nearest(leaky(x), self.factor), 0)
    h = turn(told(h), 1) + conv(self.width, 1, self.dtype, "shortcut")(nearest(x, self.factor))
    return constrain(h + turn(told(turn(told(h), 2)), 3))


def leaky(x: Array) -> Array:
  """Leaky ReLU."""
  return nn.leaky_relu(x, SLOPE)


def conv(width: int, size: int, dtype: str, name: str, dilation: int = 1, init=nn.initializers.orthogonal()) -> nn.Conv:  # noqa: B008
  """A convolution along time that keeps its length."""
  return FlaxConv(width, (size,), kernel_dilation=(dilation,), padding="SAME", dtype=dtype, kernel_init=init, name=name)
