"""Weights of the loss over noise levels.

Contract: a frozen dataclass, `__call__(log_snr [B], slope [B]) -> [B]`: the weight of the squared error in the data.
slope = -d log_snr / d tau > 0 (`Path.log_snr_slope`): what has it as a factor is, with tau uniform, an integral over
log-SNR, the same on every path but for its ends (Kingma & Gao 2023, arXiv:2303.00848). The squared error in the
noise is SNR times that in the data, so a weight w of the noise is w SNR here.
"""

import dataclasses
from typing import Literal

import jax
import jax.numpy as jnp

from latents.types import Array


@dataclasses.dataclass(frozen=True)
class Unit:
  """What makes the weight of another error 1 at every level, as tau is drawn.

  "data": 1. "noise": SNR, DDPM's simple loss (Ho et al. 2020, arXiv:2006.11239, eq. 14). "rotation": SNR + 1, the
  velocity of paths with alpha^2 + sigma^2 = 1 by their angle (Salimans & Ho 2022, arXiv:2202.00512, section 4).
  "straight": (sqrt(SNR) + 1)^2, the velocity of the linear path (Lipman et al. 2023, arXiv:2210.02747).
  """

  of: Literal["data", "noise", "rotation", "straight"] = "noise"

  def __call__(self, log_snr: Array, slope: Array) -> Array:
    """See the class."""
    snr = jnp.exp(log_snr)
    return {"data": 0 * snr + 1, "noise": snr, "rotation": snr + 1, "straight": (jnp.sqrt(snr) + 1) ** 2}[self.of]


@dataclasses.dataclass(frozen=True)
class Clipped:
  """1 / max(tau, least)^2 on the linear path with noise of that deviation: the error of a velocity that is read from an
  estimate of the data, (x - data) / tau, with tau not below `least` (JiT: Li & He 2025, arXiv:2511.13720)."""

  least: float = 0.05
  noise: float = 1.0

  def __call__(self, log_snr: Array, slope: Array) -> Array:
    """See the class: tau = 1 / (1 + noise sqrt(SNR))."""
    return jnp.minimum(1 + self.noise * jnp.exp(log_snr / 2), 1 / self.least) ** 2


@dataclasses.dataclass(frozen=True)
class MinSNR:
  """min(SNR, gamma) (Hang et al. 2023, arXiv:2303.09556, section 3.4)."""

  gamma: float = 5.0

  def __call__(self, log_snr: Array, slope: Array) -> Array:
    """See the class."""
    return jnp.exp(jnp.minimum(log_snr, jnp.log(self.gamma)))


@dataclasses.dataclass(frozen=True)
class MaxSNR:
  """max(SNR, least): "truncated SNR", the weight of progressive distillation (Salimans & Ho 2022, section 4)."""

  least: float = 1.0

  def __call__(self, log_snr: Array, slope: Array) -> Array:
    """See the class."""
    return jnp.exp(jnp.maximum(log_snr, jnp.log(self.least)))


@dataclasses.dataclass(frozen=True)
class P2:
  """1 / (k + SNR)^gamma of the error in the noise (Choi et al. 2022, arXiv:2204.00227)."""

  gamma: float = 1.0
  k: float = 1.0

  def __call__(self, log_snr: Array, slope: Array) -> Array:
    """See the class."""
    snr = jnp.exp(log_snr)
    return snr / (self.k + snr) ** self.gamma


@dataclasses.dataclass(frozen=True)
class Sigmoid:
  """1/2 slope e^bias sigmoid(log_snr - bias) (SiD2: Hoogeboom et al. 2024, arXiv:2410.19324).

  Of the error in the noise, 1/2 slope sigmoid(bias - log_snr): the likelihood, faded out where SNR is above e^bias.
  """

  bias: float = 0.0

  def __call__(self, log_snr: Array, slope: Array) -> Array:
    """See the class."""
    return slope / 2 * jnp.exp(self.bias) * jax.nn.sigmoid(log_snr - self.bias)


@dataclasses.dataclass(frozen=True)
class EDMWeight:
  """SNR + 1 / data_std^2: 1 of the error in EDM's F (Karras et al. 2022, arXiv:2206.00364, table 1)."""

  data_std: float = 0.5

  def __call__(self, log_snr: Array, slope: Array) -> Array:
    """See the class."""
    return jnp.exp(log_snr) + 1 / self.data_std**2


@dataclasses.dataclass(frozen=True)
class Likelihood:
  """1/2 slope SNR: with tau uniform, the bound on the likelihood but for its ends (VDM: Kingma et al. 2021,
  arXiv:2107.00630). It has no bound at the data."""

  def __call__(self, log_snr: Array, slope: Array) -> Array:
    """See the class."""
    return slope / 2 * jnp.exp(log_snr)


Weight = Unit | Clipped | MinSNR | MaxSNR | P2 | Sigmoid | EDMWeight | Likelihood
