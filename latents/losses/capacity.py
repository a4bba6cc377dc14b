"""The capacity objective of Burgess et al. 2018 (arXiv:1804.03599), for a term that the model makes itself."""

import dataclasses

import jax.numpy as jnp

from latents.losses.base import Weight
from latents.types import Array


@dataclasses.dataclass(frozen=True)
class Capacity(Weight):
  """weight * |term - C(t)| in place of weight * term (eq. 8): the rate is held at C, not pushed to 0.

  C(t) grows linearly from 0 to `capacity` over `rise` steps. capacity: in the term's own unit; of `KL` that is nats a
  latent number, the paper's nats an example over the numbers of a latent (and its gamma, beside a sum over the
  signal's numbers, is gamma / TSR beside a mean).
  """

  capacity: float = 1.0
  rise: int = 0

  def counted(self, term: Array, step: Array) -> Array:
    """term [], step [] int -> [] its distance from C(step)."""
    share = jnp.clip(jnp.asarray(step, jnp.float32) / max(self.rise, 1), 0.0, 1.0) if self.rise else 1.0
    return super().counted(jnp.abs(term - self.capacity * share), step)
