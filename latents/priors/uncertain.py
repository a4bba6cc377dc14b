"""A loss that weighs noise levels by what it has to expect there: EDM2 (Karras et al. 2024, arXiv:2312.02696)."""

import flax.linen as nn
import jax.numpy as jnp

from latents.diffusion.paths import spread
from latents.nn.magnitude import Uncertainty
from latents.priors.flow import FlowPrior
from latents.types import Array


class UncertainFlow(FlowPrior, kw_only=True):
  """A `FlowPrior` whose loss e of an example becomes e / exp(u) + u, u(tau) learned beside it (eq. 21).

  u tends to the logarithm of the mean of e at a noise level, so that every level has gradients of one size. Its log
  is the term itself: 1 + the mean of u. uncertainty: t [B], as the backbone is told it, -> u [B].
  """

  uncertainty: nn.Module = Uncertainty()

  def _errors(self, out: Array, z: Array, eps: Array, noisy: Array, tau: Array) -> dict[str, tuple[Array, float]]:
    u = self.uncertainty(self.process.inputs(noisy, tau)[1])
    found = super()._errors(out, z, eps, noisy, tau)
    error, weight = found["flow"]
    u = spread(u, error)
    return {**found, "flow": (error * jnp.exp(-u) + u, weight)}
