"""The negative log-likelihood of pixels under the logit-Laplace distribution."""

import dataclasses
import math

import jax.numpy as jnp

from latents.decoders.logit_laplace import NAME
from latents.encoders.dvae import inward
from latents.errors import UserError
from latents.losses.base import Reconstruction, Term, Tree
from latents.types import Array, Seen


@dataclasses.dataclass(frozen=True)
class LogitLaplace(Reconstruction):
  """mean of -log p(y), in nats a number; p(y) = exp(-|logit y - mu| / b) / (2 b y (1 - y)) on (0,1).

  Ramesh et al. 2021, arXiv:2102.12092, equation 2. y = 0.8 u + 0.1 for a signal u in [0,1]; mu and log b are what
  `decoders.LogitLaplaceDecoder` has sown at `path`, the decoder's. Papers that sum over the numbers of a picture are so
  many times larger. It may be negative: it is a density.
  """

  path: str = "decoder"

  @property
  def reads(self) -> tuple[str, ...]:
    """What the decoder has sown."""
    return (f"{self.path}/{NAME}",)

  def __call__(self, x: Array, x_hat: Array, *, aux: Tree = None) -> Array:
    """x [B,*S,C], x_hat the distribution [B,*S,2C] -> []."""
    if x_hat.shape != (*x.shape[:-1], 2 * x.shape[-1]):
      raise UserError(
        f"logit-Laplace compares a distribution [B,*S,2C] with [B,*S,C], not {x_hat.shape} with {x.shape}"
      )
    mu, log_b = jnp.split(x_hat.astype(jnp.float32), 2, -1)
    y = inward(x.astype(jnp.float32))
    logit = jnp.log(y) - jnp.log1p(-y)
    nats = jnp.abs(logit - mu) * jnp.exp(-log_b) + log_b + math.log(2.0) + jnp.log(y) + jnp.log1p(-y)
    return nats.mean()

  def measure(self, seen: Seen, own: Tree, *, aux: Tree, key: Array) -> Term:
    """See `Loss`; x_hat itself is not read."""
    return Term(self(seen.target, seen.taps[self.reads[0]]))
