"""Structural similarity."""

import dataclasses
from typing import ClassVar

import jax
import jax.numpy as jnp
import numpy as np

from latents.errors import UserError
from latents.evaluate.paired.base import MeanMetric
from latents.evaluate.sums import Tree
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

  def fits(self, kind: str, shape: tuple[int, ...]) -> bool:
    """See `Metric`: not smaller than the window either."""
    return kind in self.kinds and min(shape[-3:-1]) >= len(_WINDOW)

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
    a, b = (jnp.clip(v, -1, 1).reshape(-1, *x.shape[-3:]) / 2 + 0.5 for v in (x, x_hat))
    mean_a, mean_b, var_a, var_b, cov = _moments(a, b)
    # equation 13
    top = (2 * mean_a * mean_b + _C1) * (2 * cov + _C2)
    bottom = (mean_a**2 + mean_b**2 + _C1) * (var_a + var_b + _C2)
    return (top / bottom).reshape(len(x), -1).mean(1)


def _moments(a: Array, b: Array) -> tuple[Array, Array, Array, Array, Array]:
  """a, b [B,H,W,C] -> means, variances and covariance in each window, [B,H-10,W-10,C].

  Axis by axis by the law of total variance, Var = E[Var] + Var[E]: E[a^2] - E[a]^2 would lose the digits
  that decide flat regions, where the variance is small against K2. Shifted sums rather than
  convolutions, whose factors accelerators round.
  """
  var_a = var_b = cov = jnp.zeros_like(a)
  for axis in (1, 2):
    size = a.shape[axis] - 2 * _RADIUS

    def windows(x: Array, axis: int = axis, size: int = size) -> list[Array]:
      return [jax.lax.slice_in_dim(x, i, i + size, axis=axis) for i in range(len(_WINDOW))]

    def mean(parts: list[Array]) -> Array:
      return sum((w * part for w, part in zip(_WINDOW, parts, strict=True)), jnp.zeros(()))

    each_a, each_b = windows(a), windows(b)
    a, b = mean(each_a), mean(each_b)
    var_a = mean([v + (e - a) ** 2 for v, e in zip(windows(var_a), each_a, strict=True)])
    var_b = mean([v + (e - b) ** 2 for v, e in zip(windows(var_b), each_b, strict=True)])
    cov = mean([c + (p - a) * (q - b) for c, p, q in zip(windows(cov), each_a, each_b, strict=True)])
  return a, b, var_a, var_b, cov
