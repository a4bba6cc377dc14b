"""Distributions of the training time tau, and the shift of time for larger latents."""

import dataclasses
import math

import jax
import jax.numpy as jnp

from latents.diffusion.resampled import Resampled
from latents.types import Array


@dataclasses.dataclass(frozen=True)
class Uniform:
  """tau ~ U(0, 1)."""

  def __call__(self, key: Array, batch: int) -> Array:
    """[batch] times in [0,1)."""
    return jax.random.uniform(key, (batch,))


@dataclasses.dataclass(frozen=True)
class LogitNormal:
  """log(tau / (1 - tau)) ~ N(mean, std^2) (Esser et al. 2024, arXiv:2403.03206, eq. 19); mean > 0: more noise."""

  mean: float = 0.0
  std: float = 1.0

  def __call__(self, key: Array, batch: int) -> Array:
    """[batch] times in (0,1)."""
    return jax.nn.sigmoid(self.mean + self.std * jax.random.normal(key, (batch,)))


@dataclasses.dataclass(frozen=True)
class Steps:
  """tau = t / count, t uniform over 1..count: the times of a chain of that many steps (DDPM, algorithm 1)."""

  count: int = 1000

  def __call__(self, key: Array, batch: int) -> Array:
    """[batch] times in (0,1]."""
    return jax.random.randint(key, (batch,), 1, self.count + 1) / self.count


@dataclasses.dataclass(frozen=True)
class LogNormal:
  """log sigma ~ N(mean, std^2) on the path `Exploding(most)` (Karras et al. 2022, arXiv:2206.00364, table 1).

  Times are cut at 1, beyond which a part in a million lies. EDM2 (arXiv:2312.02696) has -0.4 and 1.0 on latents.
  """

  mean: float = -1.2
  std: float = 1.2
  most: float = 80.0

  def __call__(self, key: Array, batch: int) -> Array:
    """[batch] times in (0,1]."""
    sigma = jnp.exp(self.mean + self.std * jax.random.normal(key, (batch,)))
    return jnp.minimum(sigma / self.most, 1.0)


@dataclasses.dataclass(frozen=True)
class Stratified:
  """(u + i / batch) mod 1 for i = 0..batch-1, one u ~ U(0, 1): each time is uniform, and together they are spread
  evenly, so that the loss of a batch varies less (VDM: Kingma et al. 2021, arXiv:2107.00630, appendix I.1)."""

  def __call__(self, key: Array, batch: int) -> Array:
    """[batch] times in [0,1)."""
    return (jax.random.uniform(key) + jnp.arange(batch) / batch) % 1


Times = Uniform | Stratified | LogitNormal | LogNormal | Steps | Resampled


def shift(tau: Array, s: float) -> Array:
  """s tau / (1 + (s - 1) tau): log-SNR falls by 2 ln s (Esser et al. 2024, eq. 23). Shifts s1, s2 make s1 s2."""
  return s * tau / (1 + (s - 1) * tau)


def dimension_shift(dims: int, base: int = 4096) -> float:
  """max(1, sqrt(dims / base)): the shift for a latent of `dims` numbers (RAE, arXiv:2510.11690, section 4).

  base: 4 x 32 x 32, the latent for which the unshifted times were tuned.
  """
  return max(1.0, math.sqrt(dims / base))
