"""A discriminator that is shown the original and the reconstruction together (LTX-Video)."""

import dataclasses
from typing import Any

import jax.numpy as jnp

from latents.discriminators import Verdict
from latents.losses.adversarial import Adversarial
from latents.losses.base import Tree
from latents.types import Array, Seen


@dataclasses.dataclass(frozen=True)
class PairAdversarial(Adversarial):
  """Reconstruction GAN (HaCohen et al. 2025, arXiv:2501.00103): the discriminator sees both signals, side by side in
  the channels, and says which of the two is the original: (x, x_hat) is real, (x_hat, x) is not.

  Both orders are judged in every pass, which is the mean over a random one. The decoder wants both verdicts the other
  way round: what it feels is what the judge would learn of the pair with x and x_hat exchanged (but for hinge and
  vanilla, where it feels plain logits). Each order is a batch of its own: a judge with batch norm tells them apart by
  the statistics, so its norm is "group" or "none". The paper states no weights.
  """

  edition = 2  # 1: the generator felt (x_hat, x) alone

  def felt(self, seen: Seen, own: Tree, fake: Verdict, aux: Tree) -> Array:
    """The mean over both orders."""
    real = self.judge(seen, own, real=True, aux=aux)[0]
    turned = [1.0 - r if self.objective == "lsgan" else -r for r in real.logits]  # what x_hat in x's place would want
    return 0.5 * (self.generator(*fake.logits) + self.generator(*turned))

  def shown(self, seen: Seen, *, real: bool) -> tuple[Any, ...]:
    """[B,*S,2C]: target and x_hat, or x_hat and target."""
    pair = (seen.target, seen.x_hat) if real else (seen.x_hat, seen.target)
    return (jnp.concatenate([x.astype(jnp.float32) for x in pair], -1),)
