"""The negative log-likelihood of tokens."""

import dataclasses

import jax
import jax.numpy as jnp

from latents.errors import UserError
from latents.losses.base import Reconstruction, Term, Tree
from latents.types import Array, Seen


@dataclasses.dataclass(frozen=True)
class CrossEntropy(Reconstruction):
  """mean of -log softmax(x_hat)[x] over batch and positions, in nats a token.

  x int [B,*S] in [0,V), x_hat logits [B,*S,V]. Papers that sum over the positions are prod(S) times larger. Logged are
  bits (a token: nats / ln 2) and accuracy, the share of tokens whose logit is the largest.
  """

  def __call__(self, x: Array, x_hat: Array, *, aux: Tree = None) -> Array:
    """[B,*S], [B,*S,V] -> []."""
    if not jnp.issubdtype(x.dtype, jnp.integer) or x_hat.shape[:-1] != x.shape:
      raise UserError(f"cross entropy compares logits [B,*S,V] with integers [B,*S], not {x_hat.shape} with {x.shape}")
    log_p = jax.nn.log_softmax(x_hat.astype(jnp.float32))
    return -jnp.take_along_axis(log_p, x[..., None].astype(jnp.int32), -1).mean()

  def measure(self, seen: Seen, own: Tree, *, aux: Tree, key: Array) -> Term:
    """See `Loss`."""
    value = self(seen.target, seen.x_hat, aux=aux)
    right = jnp.mean(jnp.argmax(seen.x_hat, -1) == seen.target, dtype=jnp.float32)
    logs = {"bits": value / jnp.log(2.0), "accuracy": right}
    return Term(value, jax.lax.stop_gradient(logs))
