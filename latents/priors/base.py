"""What all priors have in common: the contract, label dropout, and one random key per sample."""

import flax.linen as nn
import jax
import jax.numpy as jnp

from latents.errors import UserError
from latents.types import Array, Latent, Terms


class Prior(nn.Module):
  """A generative model of latents. Reads latent.z (normalised per channel) or, if `discrete`, latent.codes."""

  discrete = False
  likelihood = False  # whether `nll` is there

  def loss(self, latent: Latent, cond: Array | None, *, train: bool) -> Terms:
    """latent, cond [B] int32 or None -> one term of weight 1, e.g. {"flow": []}; rng streams "prior", "dropout"."""
    raise TypeError(f"{type(self).__name__} has no loss")

  def nll(self, latent: Latent, cond: Array | None) -> Array:
    """latent, cond [B] int32 or None -> [B] nats of each example's whole latent; deterministic up to stream "prior"."""
    raise TypeError(f"{type(self).__name__} has no likelihood")

  def sample(
    self, cond: Array | None, *, shape: tuple[int, ...], guidance: float | None = None, count: int = 1
  ) -> Latent:
    """cond [B] int32, or None for `count` samples without a label -> Latent of B samples; rng stream "prior".

    shape: of one sample (z's or codes' without the batch). guidance: None = the prior's own; 1 = conditional.
    """
    raise TypeError(f"{type(self).__name__} has no sample")


def drop_labels(key: Array, cond: Array, rate: float, null: int) -> Array:
  """[B] labels -> the same, each replaced by `null` with probability `rate`."""
  return jnp.where(jax.random.bernoulli(key, rate, cond.shape), null, cond)


def sample_keys(key: Array, batch: int) -> Array:
  """[batch] keys: sample i depends on (key, i) alone, whatever the size of the batch or its sharding."""
  return jax.vmap(lambda i: jax.random.fold_in(key, i))(jnp.arange(batch))


def null_labels(classes: int, batch: int) -> Array:
  """[batch] null labels, or None for an unconditional backbone (classes 0)."""
  return jnp.full((batch,), classes, jnp.int32) if classes else None


def check_guidance(guidance: float, classes: int) -> None:
  """Raises UserError where guidance is asked of a prior that has no classes."""
  if guidance != 1.0 and not classes:
    raise UserError(f"guidance {guidance} needs a backbone with classes > 0; this one is unconditional")
