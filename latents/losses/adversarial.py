"""The adversarial term: hinge losses, their schedule, and the adaptive weight of VQGAN."""

import dataclasses
from typing import ClassVar

import flax.linen as nn
import jax
import jax.numpy as jnp

from latents.discriminators import PatchGAN
from latents.losses.base import Rival, Term, Tree
from latents.optim import Adam
from latents.types import Array, Seen, Terms


@dataclasses.dataclass(frozen=True)
class Adversarial(Rival):
  """Hinge GAN (Lim and Ye 2017; Esser et al. 2020, arXiv:2012.09841), with its discriminator and optimiser.

  weight, start: as of every loss; the generator feels the term from `start`. ramp: steps over which it
  grows linearly to full strength. lead: the discriminator trains from `start - lead`. adaptive: multiply
  by `adaptive_weight`, which is at most `clamp`. optimizer: the discriminator's.
  """

  discriminator: nn.Module = dataclasses.field(default_factory=PatchGAN)
  ramp: int = 0
  lead: int = 0
  adaptive: bool = True
  clamp: float = 1e4
  optimizer: Adam = dataclasses.field(default_factory=lambda: Adam(betas=(0.5, 0.9)))

  group: ClassVar[str] = "disc"

  def init(self, key: Array, seen: Seen, *, aux: Tree) -> Tree:
    """The discriminator's variables."""
    return dict(self.discriminator.init(key, seen.x_hat, train=True))

  @property
  def at(self) -> str:
    """The decoder's last kernel."""
    return "decoder" if self.adaptive else ""

  @property
  def optimizer_of(self) -> Adam:
    """The discriminator's."""
    return self.optimizer

  def measure(self, seen: Seen, own: Tree, *, aux: Tree, key: Array) -> Term:
    """What the generator feels."""
    return Term(self.generator(self._judge(own, seen.x_hat)))

  def learn(self, seen: Seen, own: Tree, *, aux: Tree, key: Array) -> Term:
    """What the discriminator learns."""
    value, logs = self.discriminate(self._judge(own, seen.target), self._judge(own, seen.x_hat))
    return Term(value, {"disc": value, **logs})

  def _judge(self, own: Tree, x: Array) -> Array:
    return self.discriminator.apply(own, x, train=True)  # pyright: ignore[reportReturnType]

  def generator(self, fake: Array) -> Array:
    """Logits of reconstructions [B,...] -> []: -mean D(x_hat)."""
    return -fake.astype(jnp.float32).mean()

  def discriminate(self, real: Array, fake: Array) -> tuple[Array, Terms]:
    """Logits [B,...] -> (loss [], logs): (E relu(1 - D(x)) + E relu(1 + D(x_hat))) / 2.

    logs: real_accuracy, fake_accuracy (share of logits on the right side of 0), real_logit, fake_logit.
    """
    real, fake = real.astype(jnp.float32), fake.astype(jnp.float32)
    loss = 0.5 * (jax.nn.relu(1.0 - real).mean() + jax.nn.relu(1.0 + fake).mean())
    logs = {
      "real_accuracy": (real > 0).mean(dtype=jnp.float32),
      "fake_accuracy": (fake < 0).mean(dtype=jnp.float32),
      "real_logit": real.mean(),
      "fake_logit": fake.mean(),
    }
    return loss, logs

  def gate(self, step: Array) -> Array:
    """step [] int -> [] in [0,1]: 0 before `start`, then (step - start + 1) / ramp up to 1."""
    grown = jnp.asarray(step - self.start + 1, jnp.float32) / max(self.ramp, 1)
    return jnp.clip(grown, 0.0, 1.0)

  def learn_gate(self, step: Array) -> Array:
    """step [] int -> [] float32: 0 before `start - lead`, 1 from then on (factor of the D loss)."""
    return jnp.asarray(step >= self.start - self.lead, jnp.float32)
