"""A discriminator that is shown the original and the reconstruction together (LTX-Video)."""

import dataclasses
from typing import Any

import jax.numpy as jnp

from latents.losses.adversarial import Adversarial
from latents.types import Seen


@dataclasses.dataclass(frozen=True)
class PairAdversarial(Adversarial):
  """Reconstruction GAN (HaCohen et al. 2025, arXiv:2501.00103): the discriminator sees both signals, side by side in
  the channels, and says which of the two is the original: (x, x_hat) is real, (x_hat, x) is not."""

  def shown(self, seen: Seen, *, real: bool) -> tuple[Any, ...]:
    """[B,*S,2C]: target and x_hat, or x_hat and target."""
    pair = (seen.target, seen.x_hat) if real else (seen.x_hat, seen.target)
    return (jnp.concatenate([x.astype(jnp.float32) for x in pair], -1),)
