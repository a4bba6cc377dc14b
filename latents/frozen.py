"""The frozen stage 1 as stage 2 sees it: normalised encode and decode, and the only stop_gradient."""

import dataclasses
from typing import Any

import chex
import jax
import jax.numpy as jnp

from latents.autoencoders import Autoencoder, Stacked
from latents.nn.streams import streams
from latents.types import Array, Latent


@dataclasses.dataclass(frozen=True)
class Frozen:
  """A trained autoencoder; its arrays come as an argument, so that they can be sharded.

  The argument `frozen` is {"variables": the module's collections, "mean": [D], "std": [D]}: the
  per-channel statistics of z over the training set, measured once and stored in the stage-1
  artefact. A prior sees (z - mean) / std only.
  """

  autoencoder: Autoencoder | Stacked

  def encode(self, frozen: dict, x: Array, *, key: Array, train: bool) -> Latent:
    """x [B,*S,C] in [-1,1] -> normalised Latent without gradient."""
    return self.recall(frozen, self.store(frozen, x), key=key, train=train)

  def store(self, frozen: dict, x: Array) -> Array:
    """x [B,*S,C] -> the array a latent cache keeps."""
    return jax.lax.stop_gradient(self.autoencoder.apply(frozen["variables"], x, method="store"))

  def recall(self, frozen: dict, stored: Array, *, key: Array, train: bool) -> Latent:
    """A stored array -> normalised Latent; `train` draws from the posterior."""
    latent: Any = self.autoencoder.apply(frozen["variables"], stored, train=train, method="recall", rngs=streams(key))
    chex.assert_axis_dimension(latent.z, -1, frozen["mean"].shape[0])
    latent = latent.replace(z=(latent.z - frozen["mean"]) / frozen["std"])
    return jax.lax.stop_gradient(latent)

  def restore_scale(self, frozen: dict, latent: Latent) -> Latent:
    """Normalised Latent -> the decoder's own units."""
    if latent.z is None:
      return latent
    return latent.replace(z=latent.z * frozen["std"] + frozen["mean"])

  def decode(self, frozen: dict, latent: Latent, *, key: Array, steps: int | None = None) -> Array:
    """Normalised Latent (z, or codes alone) -> x [B,*S,C]."""
    latent = self.restore_scale(frozen, latent)
    return self.autoencoder.apply(frozen["variables"], latent, steps=steps, method="decode", rngs=streams(key))

  def shape(self, frozen: dict, signal: tuple[int, ...]) -> Latent:
    """Abstract Latent of one example: fields are ShapeDtypeStructs without the batch axis."""
    x = jax.ShapeDtypeStruct((1, *signal), jnp.float32)
    latent = jax.eval_shape(lambda f, x: self.encode(f, x, key=jax.random.key(0), train=False), frozen, x)
    return jax.tree.map(lambda a: jax.ShapeDtypeStruct(a.shape[1:], a.dtype), latent)
