"""DiffWave: a stack of dilated, gated convolutions over the wave. Kong et al. 2021, arXiv:2009.09761, section 3."""

import math

import flax.linen as nn
import jax.numpy as jnp
import numpy as np

from latents.errors import UserError
from latents.nn.condition import entry, labels
from latents.nn.conv import uniform_fan_in
from latents.nn.convolve import FlaxConv, convolve
from latents.nn.linear import Dense
from latents.nn.sharding import constrain
from latents.types import Array, Cond

EMBEDDING = (128, 512)  # sines and cosines of a step, and what they become (appendix A)
LABEL = 128  # width of a label's embedding (section 3.3)
SLOPE = 0.4  # of the upsampler's leaky ReLU


class DiffWave(nn.Module):
  """x [B,T,C], t [B] in [0,1], cond -> [B,T,out] float32; exactly 0 at the start.

  `layers` residual layers of `width` channels with dilations 1, 2, 4, ..., 2^(cycle - 1), 1, ... Each adds what it
  makes of the step, gates a convolution of three taps, to which it has added what it makes of the mel spectrogram and
  of the label, and gives half of the result to a sum over the layers, from which the output is read.

  steps: length of the chain; the step steps * t is embedded, between two whole ones their embeddings are mixed
  linearly. mels: bands of cond["latent"] [B,T/f,mels], which f = prod(factors) times as many are made of; 0 = it is
  not read, and the same network draws waves from nothing or from labels. classes: number of labels; `classes` is the
  null label; 0 = none. out: None = C. UserError where a mel spectrogram is missing or of another size.
  """

  width: int = 64
  layers: int = 30
  cycle: int = 10
  mels: int = 0
  factors: tuple[int, ...] = (16, 16)
  classes: int = 0
  steps: int = 50
  out: int | None = None
  dtype: str = "float32"

  @property
  def conditions(self) -> tuple[str, ...]:
    """Names of what it reads of a condition."""
    return (*(("label",) if self.classes else ()), *(("latent",) if self.mels else ()))

  @nn.compact
  def __call__(self, x: Array, t: Array, cond: Cond | None, *, train: bool = False) -> Array:
    """See the class."""
    del train  # no dropout
    check_times(self, t)
    told = {}
    if self.mels:
      told["mel"] = self._heard(mel_of(self, cond, x, self.mels))
    if self.classes:
      label = labels(cond, self.classes, x.shape[0])
      told["label"] = nn.Embed(self.classes + 1, LABEL, dtype=self.dtype, name="label")(label)[:, None]
    step = embed_steps(t, self.steps).astype(self.dtype)
    for i, width in enumerate((EMBEDDING[1], EMBEDDING[1])):
      step = nn.silu(Dense(width, dtype=self.dtype, kernel_init=uniform_fan_in, name=f"step_{i}")(step))
    h, total = nn.relu(point(self.width, self.dtype, "input")(x)), 0.0
    for i in range(self.layers):
      h, skip = Layer(self.width, 2 ** (i % self.cycle), self.dtype, name=f"layers_{i}")(h, step, told)
      total = total + skip
    h = nn.relu(point(self.width, self.dtype, "skip")(total / math.sqrt(self.layers)))
    out = self.out or x.shape[-1]
    return Dense(out, dtype=self.dtype, kernel_init=nn.initializers.zeros, name="conv_out")(h).astype(jnp.float32)

  def _heard(self, mel: Array) -> Array:
    """[B,n,mels] -> [B,n*f,mels]: a transposed convolution of one channel over time and bands for each factor."""
    h = mel[..., None]
    for i, factor in enumerate(self.factors):
      h = nn.leaky_relu(Stretch(factor, self.dtype, name=f"stretch_{i}")(h), SLOPE)
    return h[..., 0]


class Layer(nn.Module):
  """h [B,T,width], step [B,512], told: name -> [B,T or 1,E], what else is known -> (h, skip)."""

  width: int
  dilation: int
  dtype: str

  @nn.compact
  def __call__(self, h: Array, step: Array, told: Cond) -> tuple[Array, Array]:
    """See the class."""
    double, init = 2 * self.width, nn.initializers.he_normal()
    y = h + Dense(self.width, dtype=self.dtype, kernel_init=uniform_fan_in, name="step")(step)[:, None]
    dilated = FlaxConv(
      double, (3,), kernel_dilation=(self.dilation,), padding="SAME", dtype=self.dtype, kernel_init=init, name="dilated"
    )
    y = dilated(y)
    for name, value in told.items():
      y = y + point(double, self.dtype, name)(value)
    gate, signal = jnp.split(constrain(y), 2, -1)
    y = point(double, self.dtype, "out")(nn.sigmoid(gate) * jnp.tanh(signal))
    more, skip = jnp.split(constrain(y), 2, -1)
    return (h + more) / math.sqrt(2), skip


class Stretch(nn.Module):
  """[B,n,M,1] -> [B,n*factor,M,1]: the transposed convolution of 2 factor taps in time, 3 in frequency, with stride
  factor in time; the first factor // 2 outputs are cut off, and as many at the end as are left over.

  Each output sees the two nearest frames: one convolution of three taps, whose features are the outputs between two
  frames. Parameters: kernel [2 factor,3,1,1] (in the order of `lax`: a convolution with it turned round), which begins
  as linear interpolation of each band (at random, sounds are led by smeared bands for long), bias [1].
  """

  factor: int
  dtype: str = "float32"

  @nn.compact
  def __call__(self, x: Array) -> Array:
    """See the class."""
    factor, first = self.factor, self.factor // 2
    kernel = self.param("kernel", lambda _: interpolation(factor))
    bias = self.param("bias", nn.initializers.zeros, (1,), jnp.float32)
    # Output factor i + j takes tap j + first of frame i, that of frame i - 1 is `factor` later, of i + 1 earlier.
    taps = jnp.pad(kernel[..., 0, 0], ((factor - first, first), (0, 0))).reshape(3, factor, 3)[::-1]
    taps = taps[:, :, ::-1].transpose(0, 2, 1)[:, :, None].astype(self.dtype)  # [3 in time, 3 bands, 1, factor]
    y = convolve(x.astype(self.dtype), taps) + bias.astype(self.dtype)
    y = y.transpose(0, 1, 3, 2)
    return y.reshape(y.shape[0], -1, y.shape[3], 1)


def interpolation(factor: int) -> Array:
  """[2 factor,3,1,1]: a triangle in time, 1 at its middle, of the middle one of three bands."""
  triangle = 1 - np.abs(np.arange(2 * factor) - (factor - 0.5)) / factor
  return jnp.asarray(triangle[:, None] * np.array([0.0, 1.0, 0.0]), jnp.float32)[..., None, None]


def point(width: int, dtype: str, name: str) -> nn.Dense:
  """A convolution of one tap."""
  return Dense(width, dtype=dtype, kernel_init=nn.initializers.he_normal(), name=name)


def embed_steps(t: Array, steps: int) -> Array:
  """t [B] in [0,1] -> [B,128] float32: sines, then cosines of 10^(4 j / 63) steps, j = 0..63.

  Of a table of whole steps: between them the fast ones mean nothing, so two neighbours are mixed.
  """
  half = EMBEDDING[0] // 2
  angle = np.arange(steps + 1)[:, None] * 10.0 ** (4 * np.arange(half) / (half - 1))
  table = jnp.asarray(np.concatenate([np.sin(angle), np.cos(angle)], -1), jnp.float32)
  step = jnp.clip(t.astype(jnp.float32) * steps, 0, steps)
  low = jnp.floor(step).astype(jnp.int32)
  share = (step - low)[:, None]
  return (1 - share) * table[low] + share * table[jnp.minimum(low + 1, steps)]


def check_times(backbone: nn.Module, t: Array) -> None:
  """UserError where a network of one time is told several."""
  if t.ndim != 1:
    raise UserError(f"{type(backbone).__name__} is told one time, not {t.shape[1]} (no noise on its condition)")


def mel_of(backbone: nn.Module, cond: Cond | None, x: Array, mels: int | None = None) -> Array:
  """cond["latent"] [B,n,mels] for a wave x [B,T,C]. UserError where it is missing or does not fit."""
  factors: tuple[int, ...] = backbone.factors  # pyright: ignore[reportAttributeAccessIssue]
  mel = entry({} if cond is None else cond, "latent")
  if mel.ndim != 3 or mel.shape[1] * math.prod(factors) != x.shape[1]:
    raise UserError(
      f"{type(backbone).__name__}(factors={factors}) makes {math.prod(factors)} samples of a frame: a mel spectrogram"
      f" of {mel.shape[1:]} does not fit {x.shape[1]} samples"
    )
  if mels is not None and mel.shape[-1] != mels:
    raise UserError(f"{type(backbone).__name__}(mels={mels}) is told {mel.shape[-1]} bands")
  return mel
