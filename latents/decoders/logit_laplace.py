"""A decoder of a distribution over pixels: the logit-Laplace of DALL-E's first stage."""

import jax
import jax.numpy as jnp

from latents.decoders.base import Wrapped
from latents.encoders.dvae import MARGIN
from latents.errors import UserError
from latents.types import Array, Decoded, Latent

NAME = "logit_laplace"  # under which the distribution is sown


class LogitLaplaceDecoder(Wrapped):
  """Latent -> the picture of the distribution's location, [B,*S,C] in [-1,1].

  Ramesh et al. 2021, arXiv:2102.12092, section 2.1 and appendix A.3. inner: feed-forward, with 2C channels: the
  location mu and the log scale of a Laplace distribution of the logits. Both are sown as "logit_laplace" [B,*S,2C], for
  `losses.LogitLaplace`; all other losses see the picture (sigmoid(mu) - 0.1) / 0.8, unclipped in training.
  """

  @property
  def channels(self) -> int:
    """C."""
    return self.inner.channels // 2  # pyright: ignore[reportAttributeAccessIssue]

  def __call__(self, latent: Latent, x: Array, *, train: bool) -> Decoded:
    """Latent -> Decoded(x [B,*S,C] float32)."""
    both = self.inner.reconstruct(latent, train=train).astype(jnp.float32)
    self.sow("intermediates", NAME, both)
    return Decoded(x=picture(both))

  def sample(self, latent: Latent, *, steps: int | None = None) -> Array:
    """Latent -> x [B,*S,C] in [-1,1]."""
    return jnp.clip(picture(self.inner.reconstruct(latent, train=False).astype(jnp.float32)), -1.0, 1.0)


def picture(both: Array) -> Array:
  """location and log scale [B,*S,2C] -> [B,*S,C]: where the density of the logits is centred."""
  if both.shape[-1] % 2:
    raise UserError(f"logit-Laplace needs two channels for each of the signal's, the decoder gives {both.shape[-1]}")
  unit = (jax.nn.sigmoid(jnp.split(both, 2, -1)[0]) - MARGIN) / (1.0 - 2.0 * MARGIN)
  return 2.0 * unit - 1.0
