"""Distances between pixels or samples, in all-mean form.

Papers that sum over the elements and divide by the batch (LDM) are `C * prod(S)` times larger.
"""

import dataclasses

import jax.numpy as jnp

from latents.errors import UserError
from latents.losses.base import Reconstruction, Tree
from latents.types import Array


@dataclasses.dataclass(frozen=True)
class L1(Reconstruction):
  """mean |x - x_hat|; optimal prediction: the median."""

  def __call__(self, x: Array, x_hat: Array, *, aux: Tree = None) -> Array:
    """[B,*S,C] twice -> []."""
    return jnp.abs(x.astype(jnp.float32) - x_hat.astype(jnp.float32)).mean()


@dataclasses.dataclass(frozen=True)
class L2(Reconstruction):
  """mean (x - x_hat)^2; optimal prediction: the mean."""

  def __call__(self, x: Array, x_hat: Array, *, aux: Tree = None) -> Array:
    """[B,*S,C] twice -> []."""
    return jnp.square(x.astype(jnp.float32) - x_hat.astype(jnp.float32)).mean()


@dataclasses.dataclass(frozen=True)
class Huber(Reconstruction):
  """mean of d^2 / 2 where |d| <= delta, else delta (|d| - delta / 2), d = x - x_hat (Huber 1964).

  L2 / 2 within delta, delta L1 beyond. SmoothL1 with beta is this with delta = beta, divided by beta
  (`conversions.smooth_l1`).
  """

  delta: float = 1.0

  def __call__(self, x: Array, x_hat: Array, *, aux: Tree = None) -> Array:
    """[B,*S,C] twice -> []."""
    d = jnp.abs(x.astype(jnp.float32) - x_hat.astype(jnp.float32))
    near = jnp.minimum(d, self.delta)
    return (near * (d - 0.5 * near)).mean()


@dataclasses.dataclass(frozen=True)
class Charbonnier(Reconstruction):
  """mean of sqrt(d^2 + eps^2) - eps, d = x - x_hat (Charbonnier et al. 1994): L1 with a round bottom.

  Papers leave out the constant -eps, with which the minimum is 0; no gradient knows of it.
  """

  eps: float = 1e-3

  def __call__(self, x: Array, x_hat: Array, *, aux: Tree = None) -> Array:
    """[B,*S,C] twice -> []."""
    d = x.astype(jnp.float32) - x_hat.astype(jnp.float32)
    return (jnp.sqrt(jnp.square(d) + self.eps**2) - self.eps).mean()


@dataclasses.dataclass(frozen=True)
class LowPass(Reconstruction):
  """mean of the squared difference of the means over cells of `factor` numbers an axis.

  It holds the colours and leaves detail to perceptual and adversarial terms ("pooled MSE" of vqgan-training,
  cloneofsimo 2024, factor 16). UserError where the factor does not divide an axis.
  """

  factor: int = 16

  def __call__(self, x: Array, x_hat: Array, *, aux: Tree = None) -> Array:
    """[B,*S,C] twice -> []."""
    d = x.astype(jnp.float32) - x_hat.astype(jnp.float32)
    if any(n % self.factor for n in d.shape[1:-1]):
      raise UserError(f"LowPass: {self.factor} does not divide a signal of {'x'.join(map(str, d.shape[1:-1]))}")
    cells = [n for side in d.shape[1:-1] for n in (side // self.factor, self.factor)]
    return jnp.square(d.reshape(len(d), *cells, -1).mean(tuple(range(2, 2 * d.ndim - 3, 2)))).mean()
