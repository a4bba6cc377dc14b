"""PatchGAN: a small convolutional judge of overlapping patches."""

from typing import Literal

import flax.linen as nn
import jax
import jax.numpy as jnp

from latents.discriminators.base import Verdict
from latents.errors import UserError
from latents.nn.convolve import FlaxConv
from latents.nn.sharding import constrain
from latents.types import Array

_near_zero = nn.initializers.normal(0.02)


class PatchGAN(nn.Module):
  """x [B,*S,C] in [-1,1] -> one array of logits [B,*s,1], one a patch (70 px wide with 3 layers).

  Isola et al. 2016, arXiv:1611.07004, as in VQGAN: 4-wide convolutions, `layers` of stride 2 and two of
  stride 1, leaky ReLU 0.2, weights from N(0, 0.02). Signals may have one, two or three axes.
  ch: channels of the first layer, doubled at each next up to 8 ch. norm: "batch" uses the statistics of
  the batch it is given (over all devices), and keeps no running ones, so train and evaluation agree;
  "group" (groups of 32 or fewer) makes logits independent of the rest of the batch; "none".
  Raises UserError for signals shorter than 3 * 2**layers along an axis.
  """

  ch: int = 64
  layers: int = 3
  norm: Literal["batch", "group", "none"] = "batch"
  dtype: str = "float32"

  @nn.compact
  def __call__(self, x: Array, *, train: bool) -> Verdict:
    """See the class; `train` changes nothing. The hidden layers are those after each activation."""
    axes, smallest = x.ndim - 2, 3 * 2**self.layers
    if min(x.shape[1:-1]) < smallest:
      size = "x".join(map(str, x.shape[1:-1]))
      raise UserError(f"PatchGAN with {self.layers} layers needs sides of at least {smallest}, got {size}")

    def conv(h: Array, width: int, stride: int, bias: bool, name: str) -> Array:
      layer = FlaxConv(
        width, (4,) * axes, (stride,) * axes, 1,
        use_bias=bias, dtype=self.dtype, kernel_init=_near_zero, name=name,
      )  # fmt: skip
      return constrain(layer(h))

    h = jax.nn.leaky_relu(conv(x, self.ch, 2, True, "conv0"), 0.2)
    hidden = [h]
    for i in range(1, self.layers + 1):
      width, stride = self.ch * min(2**i, 8), 2 if i < self.layers else 1
      h = conv(h, width, stride, self.norm != "batch", f"conv{i}")  # batch norm would remove a bias
      h = jax.nn.leaky_relu(self._normalise(h, i), 0.2)
      hidden.append(h)
    return Verdict((conv(h, 1, 1, True, "conv_out").astype(jnp.float32),), (tuple(hidden),))

  def _normalise(self, h: Array, i: int) -> Array:
    if self.norm == "batch":
      return BatchNorm(name=f"norm{i}")(h)
    if self.norm == "group":
      groups = max(g for g in range(1, 33) if h.shape[-1] % g == 0)
      return nn.GroupNorm(groups, epsilon=1e-5, dtype=self.dtype, name=f"norm{i}")(h)
    return h


class BatchNorm(nn.Module):
  """h [B,*s,E] normalised per channel by the statistics of this very batch, in float32; eps 1e-5."""

  @nn.compact
  def __call__(self, h: Array) -> Array:
    """[B,*s,E] -> [B,*s,E]."""
    scale = self.param("scale", lambda key, shape: 1.0 + _near_zero(key, shape), (h.shape[-1],))
    bias = self.param("bias", nn.initializers.zeros, (h.shape[-1],))
    wide = h.astype(jnp.float32)
    axes = tuple(range(h.ndim - 1))
    mean = wide.mean(axes)
    var = jnp.square(wide - mean).mean(axes)
    return ((wide - mean) * jax.lax.rsqrt(var + 1e-5) * scale + bias).astype(h.dtype)
