"""Rules on what the losses push at x_hat: the balancer of EnCodec, and gradients of length one."""

import dataclasses
from typing import Any

import jax
import jax.numpy as jnp

from latents.errors import UserError, nearest
from latents.types import Array


@dataclasses.dataclass(frozen=True)
class Balancer:
  """Each loss's gradient at x_hat, times (w / sum w) norm / average(|gradient|) (arXiv:2210.13438, equation 4).

  norm: length of the sum were all gradients parallel. decay: of the averages, which are without the bias of their first
  steps. |gradient|: length for one example of the gradient of its own loss, mean over the batch; so what goes on is a
  mean over the batch too, and EnCodec's released code, which sums over it, is this one with norm times the batch. Only
  losses that have begun share, with their weight times their gate; terms of the model itself, and what a loss pulls at
  z and taps, stay outside and count with their plain weights. With microbatches the averages go on from part to part.
  """

  norm: float = 1.0
  decay: float = 0.999

  def check(self, names: list[str]) -> None:
    """Nothing: it takes any losses."""

  def init(self, names: list[str]) -> dict[str, Any]:
    """The averages by the loss's name: {"sum": [], "share": []}."""
    return {name: {"sum": jnp.zeros(()), "share": jnp.zeros(())} for name in names}

  def __call__(
    self, pushes: dict[str, Array], strengths: dict[str, Array], averages: dict[str, Any]
  ) -> tuple[Array, dict[str, Any], dict[str, Array]]:
    """(gradient at x_hat, new averages, the factors by name).

    pushes: gradients [B,*S,C] of the unweighted losses (means over the batch). strengths: weight times gate [].
    """
    found = {}
    for name, push in pushes.items():
      length = _length(push)
      going = (strengths[name] > 0) & (length > 0)
      keep, old = jnp.where(going, self.decay, 1.0), averages[name]
      add = jnp.where(going, 1.0, 0.0)
      found[name] = {"sum": keep * old["sum"] + add * length, "share": keep * old["share"] + add}
    live = {n: jnp.where(_length(p) > 0, strengths[n], 0.0) for n, p in pushes.items()}
    whole = jnp.maximum(sum(live.values(), jnp.zeros(())), 1e-12)
    mean = {n: a["sum"] / jnp.maximum(a["share"], 1.0) for n, a in found.items()}
    factors = {n: live[n] / whole * self.norm / (mean[n] + 1e-12) for n in pushes}
    total = sum((factors[n] * push for n, push in pushes.items()), jnp.zeros(()))
    return jax.lax.stop_gradient((total, found, factors))


@dataclasses.dataclass(frozen=True)
class GradientNorm:
  """The gradient at x_hat of each of `losses` (() = all) times its weight / (|gradient| + 1e-8).

  vqgan-training (cloneofsimo 2024; there of LPIPS and of the GAN): what the adaptive weight of VQGAN is for, without a
  look at the decoder's last layer. |gradient|: of the whole batch, so that the size of a loss does not matter at all;
  the sum of two weights is the sum of two lengths. Other losses keep their plain gradients; what the losses pull at z
  and taps, and terms of the model itself, stay outside. With microbatches each part has its own length.
  """

  losses: tuple[str, ...] = ()

  def check(self, names: list[str]) -> None:
    """UserError for a name that no loss has."""
    for name in self.losses:
      if name not in names:
        raise UserError(f"the gradient norm names '{name}', which no loss measures{nearest(name, names)}")

  def init(self, names: list[str]) -> dict[str, Any]:
    """Nothing is kept."""
    return {}

  def __call__(
    self, pushes: dict[str, Array], strengths: dict[str, Array], averages: dict[str, Any]
  ) -> tuple[Array, dict[str, Any], dict[str, Array]]:
    """As `Balancer`."""

    def factor(name: str, push: Array) -> Array:
      if self.losses and name not in self.losses:
        return strengths[name]
      return strengths[name] / (jnp.sqrt(jnp.square(push.astype(jnp.float32)).sum()) + 1e-8)

    factors = {name: factor(name, push) for name, push in pushes.items()}
    total = sum((factors[name] * push for name, push in pushes.items()), jnp.zeros(()))
    return jax.lax.stop_gradient((total, averages, factors))


Rule = Balancer | GradientNorm


def _length(push: Array) -> Array:
  """[B,...] gradient of a mean over the batch -> []: mean over examples of the length for an example's own loss."""
  rows = push.reshape(push.shape[0], -1).astype(jnp.float32)
  return jnp.sqrt(jnp.square(rows).sum(1)).mean() * push.shape[0]
