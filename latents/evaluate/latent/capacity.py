"""How many bits a KL latent carries, and how small a latent is."""

import dataclasses
import math

import jax.numpy as jnp
import numpy as np

from latents.evaluate.latent.base import Held, LatentMetric, Layout
from latents.evaluate.sums import Tree, add, sum_kept, total, zeros
from latents.types import Latent


def tsr(signal_shape: tuple[int, ...], latent_shape: tuple[int, ...]) -> float:
  """Tensor size reduction: numbers in a signal [*S,C] over numbers in its latent [*s,D] (or codes [*s])."""
  return math.prod(signal_shape) / math.prod(latent_shape)


@dataclasses.dataclass(frozen=True)
class GaussianCapacity(LatentMetric):
  """Bits of a KL latent: sum over its numbers of log2(1 + Var[mu_i] / E[sigma_i^2]) / 2.

  Each number is read as a Gaussian channel with signal mu_i and noise sigma_i. active: a number with a mean KL to
  N(0, 1) of at least this many nats is in use.
  """

  active: float = 0.01

  def fits(self, layout: Layout) -> bool:
    """Of latents with a posterior that are no codes."""
    return layout.gaussian and not layout.vocab

  def init(self, layout: Layout) -> Tree:
    """Sums [*s,D] over the examples."""
    parts = ("mean", "square", "noise", "kl")
    return {name: zeros(*layout.shape) for name in parts} | {"count": zeros()}

  def update(self, acc: Tree, latent: Latent, held: Held) -> Tree:
    """Reads `held.posterior`."""
    assert held.posterior is not None
    mean, std = (a.astype(jnp.float32) for a in held.posterior)
    var = jnp.square(std)
    kl = 0.5 * (mean**2 + var - 1.0 - jnp.log(var))
    parts = {"mean": mean, "square": mean**2, "noise": var, "kl": kl}
    sums = {name: add(acc[name], sum_kept(value, held.mask)) for name, value in parts.items()}
    return sums | {"count": add(acc["count"], held.mask.astype(jnp.float32).sum())}

  def result(self, acc: Tree, layout: Layout) -> dict[str, float | list[float]]:
    """capacity_bits (also "bits") and kl_bits (the rate of the prior N(0,1)) an example, active_share in [0,1]."""
    count = total(acc["count"])
    if not count:
      return dict.fromkeys(("capacity_bits", "kl_bits", "active_share", "bits"), float("nan"))
    mean, square, noise, kl = (total(acc[name]) / count for name in ("mean", "square", "noise", "kl"))
    signal = np.maximum(square - mean**2, 0.0)
    with np.errstate(divide="ignore", invalid="ignore"):
      ratio = np.where(signal > 0, signal / noise, 0.0)
    bits = float(0.5 * np.log2(1 + ratio).sum())
    return {
      "capacity_bits": bits,
      "kl_bits": float(kl.sum() / math.log(2)),
      "active_share": float((kl >= self.active).mean()),
      "bits": bits,
    }
