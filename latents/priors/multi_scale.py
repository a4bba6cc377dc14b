"""A loss at several resolutions: simple diffusion (Hoogeboom et al. 2023, arXiv:2301.11093, section 3.4)."""

import jax.numpy as jnp

from latents.errors import UserError
from latents.nn.conv import halved
from latents.priors.flow import FlowPrior
from latents.types import Array, Latent


class MultiScaleFlow(FlowPrior, kw_only=True):
  """A `FlowPrior` of signals with sides of d whose loss is the sum over s = d, d/2, ..., least of (least / s) L_s.

  L_s: the loss of means over cells, of side s; so what is coarse, and hardly seen among the high frequencies of a large
  picture, keeps a weight of 1. (The paper has 1 / s in place of least / s.) Means are linear, and so is all that leads
  from what the network gives to what is compared: L_s is the loss itself of the means of all that it is given.
  UserError where halving d does not lead to `least`, or where a variance is learned.
  """

  least: int = 32

  def _continuous(self, latent: Latent) -> Array:
    if latent.mask is not None:
      raise UserError("a loss at several resolutions has no mask")
    return super()._continuous(latent)

  def _errors(self, out: Array, z: Array, eps: Array, noisy: Array, tau: Array) -> dict[str, tuple[Array, float]]:
    if self.process.variance != "none":
      raise UserError("a loss at several resolutions has no learned variance")
    total, side, given = jnp.zeros(len(z)), z.shape[1], (out, z, eps, noisy)
    while side >= self.least:
      error, _ = self.process.terms(*given, tau)["flow"]
      total += error.reshape(len(z), -1).mean(-1) * (self.least / side)
      if side == self.least:
        return {"flow": (total, 1.0)}
      if any(n % 2 for n in given[0].shape[1:-1]):
        break
      side, given = side // 2, tuple(halved(a) for a in given)
    raise UserError(f"signals of {z.shape[1:-1]} are not a power of two times {self.least}, the least side of the loss")
