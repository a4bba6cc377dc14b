"""The residual discriminator of StyleGAN2, one logit a signal."""

import math

import flax.linen as nn
import jax
import jax.numpy as jnp

from latents.discriminators.base import Verdict
from latents.errors import UserError
from latents.nn.equalised import EqualConv, blur, leaky
from latents.types import Array

_LEAST = 4  # numbers an axis where the pyramid ends


class StyleGAN(nn.Module):
  """x [B,*S,C] in [-1,1] -> one array of logits [B,1].

  Karras et al. 2020, arXiv:1912.04958, the residual discriminator: equalised learning rates, leaky ReLU 0.2 with gain
  sqrt 2; each block halves every axis that is longer than 4 (blurred with (1,3,3,1) before), and is merged with its
  shortcut by 1 / sqrt 2; at the end the standard deviation over groups of examples as one more channel, a convolution
  and two dense layers. ViT-VQGAN (arXiv:2110.04627) and ViTok judge autoencoders with it.
  base, most: channels at side n (the longest) are min(most, base / n): 64 at 256, 512 from 32 on; 32,768 is its largest
  setting. group: examples that stand side by side in a group (at most; 0 = no such channel).
  Raises UserError for axes that do not halve down to 4 or less.
  """

  base: int = 16_384
  most: int = 512
  group: int = 4
  dtype: str = "float32"

  @nn.compact
  def __call__(self, x: Array, *, train: bool) -> Verdict:
    """See the class; `train` changes nothing. The hidden layers are the ends of the blocks."""
    whole = x.shape[1:-1]
    h = leaky(EqualConv(self._width(whole), 1, dtype=self.dtype, name="signal")(x))
    hidden, i = [h], 0
    while max(h.shape[1:-1]) > _LEAST:
      halved = tuple(n > _LEAST for n in h.shape[1:-1])
      if any(n % 2 for n, half in zip(h.shape[1:-1], halved, strict=True) if half):
        size = "x".join(map(str, whole))
        raise UserError(
          f"StyleGAN's discriminator halves every axis until it is 4 or shorter, but the signal is {size}"
        )
      h = self._block(h, halved, i)
      hidden.append(h)
      i += 1
    if self.group > 0:
      h = jnp.concatenate([h, deviation(h, self.group)], -1)
    h = leaky(EqualConv(hidden[-1].shape[-1], dtype=self.dtype, name="conv")(h))
    h = leaky(EqualConv(h.shape[-1], dtype=self.dtype, name="dense")(h.reshape(len(h), -1)))
    return Verdict((EqualConv(1, name="dense_out")(h.astype(jnp.float32)),), (tuple(hidden),))

  def _width(self, sizes: tuple[int, ...]) -> int:
    return max(1, min(self.most, self.base // max(sizes)))

  def _block(self, h: Array, halved: tuple[bool, ...], i: int) -> Array:
    """[B,*S,E] -> [B,*s,E']: the axes that are `halved` by blurring and a stride of 2."""
    stride = tuple(2 if half else 1 for half in halved)
    width = self._width(tuple(n // s for n, s in zip(h.shape[1:-1], stride, strict=True)))
    short, deep = h, leaky(EqualConv(h.shape[-1], dtype=self.dtype, name=f"block{i}_conv0")(h))
    for axis, half in enumerate(halved, 1):
      if half:
        short = jax.lax.slice_in_dim(blur(short, axis, 1), 0, None, 2, axis)
        deep = blur(deep, axis, 2)  # one row more than before: the convolution's padding is within
    short = EqualConv(width, 1, bias=False, dtype=self.dtype, name=f"block{i}_short")(short)
    padding = tuple((0, 0) if half else (1, 1) for half in halved)
    deep = leaky(EqualConv(width, 3, stride, padding, dtype=self.dtype, name=f"block{i}_conv1")(deep))
    return (short + deep) * jnp.asarray(math.sqrt(0.5), h.dtype)


def deviation(h: Array, group: int) -> Array:
  """h [B,*s,E] -> [B,*s,1]: the standard deviation over the examples of a group, mean over positions and channels.

  A group is `group` neighbours in the batch, or as many as divide it; so groups need not cross devices.
  """
  size = max(n for n in range(1, min(group, len(h)) + 1) if len(h) % n == 0)
  wide = h.astype(jnp.float32).reshape(-1, size, *h.shape[1:])
  spread = jnp.sqrt(jnp.square(wide - wide.mean(1, keepdims=True)).mean(1) + 1e-8)
  mean = spread.mean(tuple(range(1, spread.ndim)))
  rows = jnp.repeat(mean, size).reshape(-1, *(1,) * (h.ndim - 1))
  return jnp.broadcast_to(rows, (*h.shape[:-1], 1)).astype(h.dtype)
