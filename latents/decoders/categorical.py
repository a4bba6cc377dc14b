"""A decoder of tokens: another decoder's channels are the logits of a categorical distribution."""

import jax.numpy as jnp

from latents.decoders.base import Wrapped
from latents.types import Array, Decoded, Latent


class Categorical(Wrapped):
  """Latent -> logits [B,*S,V] in training, the most probable token int32 [B,*S] when it decodes.

  inner: feed-forward; its channels are the V tokens. All positions are decoded at once and independently given the
  latent, as the likelihood of an autoencoder on text without autoregression.
  """

  def __call__(self, latent: Latent, x: Array, *, train: bool) -> Decoded:
    """Latent -> Decoded(x [B,*S,V] float32)."""
    return Decoded(x=self.logits(latent, train=train))

  def sample(self, latent: Latent, *, steps: int | None = None) -> Array:
    """Latent -> int32 [B,*S]; ties go to the smaller number."""
    return jnp.argmax(self.logits(latent, train=False), -1).astype(jnp.int32)

  def logits(self, latent: Latent, *, train: bool) -> Array:
    """Latent -> [B,*S,V] float32."""
    return self.inner.reconstruct(latent, train=train).astype(jnp.float32)
