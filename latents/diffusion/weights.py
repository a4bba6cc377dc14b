"""Weights of the loss over noise levels. Contract: `__call__(log_snr [B]) -> [B]`, the weight of errors in the data."""

import dataclasses

import jax.numpy as jnp

from latents.types import Array


@dataclasses.dataclass(frozen=True)
class MinSNR:
  """min(SNR, gamma) on the squared error of the data (Hang et al. 2023, arXiv:2303.09556, section 3.4)."""

  gamma: float = 5.0

  def __call__(self, log_snr: Array) -> Array:
    """See the class."""
    return jnp.exp(jnp.minimum(log_snr, jnp.log(self.gamma)))
