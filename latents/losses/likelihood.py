"""The likelihood of the signal under a decoder with a learned variance (sigma-VAE: Rybkin et al. 2020, 2006.13202)."""

import dataclasses
import math
from typing import Literal

import jax.numpy as jnp

from latents.losses.base import Loss, Term, Tree
from latents.types import Array, Seen


@dataclasses.dataclass(frozen=True)
class Likelihood(Loss):
  """-log p(target | x_hat) in nats a number, mean over all: one learned scale s = exp(log_scale) for the whole signal.

  gaussian: d^2 / 2 s^2 + log s + log(2 pi) / 2; the best s^2 is the mean squared error, so nothing balances distortion
  and rate but the bound itself: with `Weight(1 / TSR)` on the mean KL it is the ELBO over the signal's numbers
  (arXiv:2006.13202, eq. 4). laplace: |d| / s + log 2 s, the `logvar` of LDM's loss (there it is never trained).
  Adaptive weights compare with it. logs: "scale".
  """

  kind: Literal["gaussian", "laplace"] = "gaussian"

  reference = True

  def init(self, key: Array, seen: Seen, *, aux: Tree) -> Tree:
    """log_scale [], 0."""
    return {"params": {"log_scale": jnp.zeros(())}}

  def measure(self, seen: Seen, own: Tree, *, aux: Tree, key: Array) -> Term:
    """The pass's x_hat as the centre of its target."""
    d = seen.target.astype(jnp.float32) - seen.x_hat.astype(jnp.float32)
    log_scale = own["params"]["log_scale"]
    if self.kind == "gaussian":
      value = 0.5 * jnp.square(d).mean() * jnp.exp(-2 * log_scale) + log_scale + 0.5 * math.log(2 * math.pi)
    else:
      value = jnp.abs(d).mean() * jnp.exp(-log_scale) + log_scale + math.log(2)
    return Term(value, {"scale": jnp.exp(log_scale)})
