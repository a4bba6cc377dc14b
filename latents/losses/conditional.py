"""A discriminator that is told what the decoder was given (epsilon-VAE)."""

import dataclasses
from typing import Any

import jax
import jax.numpy as jnp

from latents.errors import UserError
from latents.losses.adversarial import Adversarial
from latents.types import Array, Seen, later


@dataclasses.dataclass(frozen=True)
class ConditionalAdversarial(Adversarial):
  """As `Adversarial`, of a signal beside what is read of the pass (epsilon-VAE, Zhao et al. 2024, arXiv:2410.04081:
  the noisy x_t and its time).

  given: paths of parts, or of what parts sow; [B], [B,E], or [B,*S,E], put beside the signal as channels and constant:
  nothing is pulled at through them.
  """

  given: tuple[str, ...] = later(())

  @property
  def reads(self) -> tuple[str, ...]:
    """What is given."""
    return self.given

  def shown(self, seen: Seen, *, real: bool) -> tuple[Any, ...]:
    """[B,*S,C + channels of what is given]. UserError for what has another grid than the signal."""
    x = seen.target if real else seen.x_hat
    beside = [_spread(path, jax.lax.stop_gradient(seen.taps[path]), x) for path in self.given]
    return (jnp.concatenate([x.astype(jnp.float32), *beside], -1),)


def _spread(path: str, value: Array, x: Array) -> Array:
  if value.ndim <= 2:
    value = value.reshape(value.shape[0], *(1,) * (x.ndim - 2), -1)
    value = jnp.broadcast_to(value, (*x.shape[:-1], value.shape[-1]))
  if value.shape[:-1] != x.shape[:-1]:
    raise UserError(f"given '{path}' is {value.shape}: it must be [B], [B,E] or on the signal's grid, {x.shape}")
  return value.astype(jnp.float32)
