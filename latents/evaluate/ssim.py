"""Structural similarity."""

import dataclasses
from typing import ClassVar

import jax.numpy as jnp
import numpy as np

from latents.errors import UserError
from latents.evaluate.base import MeanMetric, Tree
from latents.types import Array

_RADIUS = 5
_GAUSSIAN = np.exp(-0.5 * (np.arange(-_RADIUS, _RADIUS + 1) / 1.5) ** 2)
_WINDOW = tuple(float(w) for w in _GAUSSIAN / _GAUSSIAN.sum())
_C1, _C2 = 0.01**2, 0.03**2  # (K L)^2 with a data range L of 1


@dataclasses.dataclass(frozen=True)
class SSIM(MeanMetric):
  """Wang et al. 2004 on images clipped to [-1,1] and mapped to [0,1]; the mean over channels (not luma).

  11x11 Gaussian window of sigma 1.5, K = (0.01, 0.03), population covariance, windows that lie wholly
  inside. Equals skimage's with gaussian_weights=True, use_sample_covariance=False. Video: mean of frames.
  Raises UserError for images smaller than 11 px.
  """

  kinds: ClassVar[tuple[str, ...]] = ("image", "video")

  @property
  def name(self) -> str:
    """The key of the result."""
    return "ssim"

  def each(self, x: Array, x_hat: Array, aux: Tree) -> Array:
    """[B,H,W,C] or [B,T,H,W,C] twice -> [B]."""
    if x.ndim < 4:
      raise UserError(f"SSIM is defined for images and video, not for signals of shape {tuple(x.shape[1:])}")
    if min(x.shape[-3:-1]) < len(_WINDOW):
      raise UserError(f"SSIM needs images of at least 11 px, got {x.shape[-3]}x{x.shape[-2]}")
    # Variances do not change with a shift; values centred on 0 lose fewer digits in E[a^2] - E[a]^2.
    a, b = (jnp.clip(v, -1, 1).reshape(-1, *x.shape[-3:]) / 2 for v in (x, x_hat))
    mean_a, mean_b = _blur(a), _blur(b)
    var_a, var_b = _blur(a * a) - mean_a**2, _blur(b * b) - mean_b**2
    cov = _blur(a * b) - mean_a * mean_b
    mean_a, mean_b = mean_a + 0.5, mean_b + 0.5
    # equation 13
    top = (2 * mean_a * mean_b + _C1) * (2 * cov + _C2)
    bottom = (mean_a**2 + mean_b**2 + _C1) * (var_a + var_b + _C2)
    return (top / bottom).reshape(len(x), -1).mean(1)


def _blur(x: Array) -> Array:
  """[B,H,W,C] -> [B,H-10,W-10,C]. Shifted sums, not a convolution: accelerators would round its factors."""
  for axis in (1, 2):
    size = x.shape[axis] - 2 * _RADIUS
    x = sum(w * jnp.take(x, jnp.arange(i, i + size), axis) for i, w in enumerate(_WINDOW))
  return x
