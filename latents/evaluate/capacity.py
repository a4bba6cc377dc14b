"""How many bits a latent carries, and how small it is."""

import dataclasses
import math
from typing import Any

import jax.numpy as jnp
import numpy as np

from latents.evaluate.base import add, sum_kept, total, zeros
from latents.types import Array

Tree = Any


def tsr(signal_shape: tuple[int, ...], latent_shape: tuple[int, ...]) -> float:
  """Tensor size reduction: numbers in a signal [*S,C] over numbers in its latent [*s,D] (or codes [*s])."""
  return math.prod(signal_shape) / math.prod(latent_shape)


@dataclasses.dataclass(frozen=True)
class GaussianCapacity:
  """Bits of a KL latent: sum over its numbers of log2(1 + Var[mu_i] / E[sigma_i^2]) / 2.

  Each number is read as a Gaussian channel with signal mu_i and noise sigma_i. shape: [*s,D] of a
  latent. active: a number with a mean KL to N(0, 1) of at least this many nats is in use.
  """

  shape: tuple[int, ...]
  active: float = 0.01

  def init(self) -> Tree:
    """Sums only; those of shards add up leaf by leaf."""
    parts = ("mean", "square", "noise", "kl")
    return {name: zeros(*self.shape) for name in parts} | {"count": zeros()}

  def update(self, acc: Tree, mean: Array, std: Array, mask: Array) -> Tree:
    """mean, std [B,*s,D] of the posterior, mask [B] bool (False = padding). Jit-able."""
    mean, var = mean.astype(jnp.float32), jnp.square(std.astype(jnp.float32))
    kl = 0.5 * (mean**2 + var - 1.0 - jnp.log(var))
    parts = {"mean": mean, "square": mean**2, "noise": var, "kl": kl}
    sums = {name: add(acc[name], sum_kept(value, mask)) for name, value in parts.items()}
    return sums | {"count": add(acc["count"], mask.astype(jnp.float32).sum())}

  def result(self, acc: Tree) -> dict[str, float]:
    """capacity_bits a sample, kl_bits a sample (the rate of the prior N(0,1)), active_share in [0,1]."""
    count = total(acc["count"])
    if not count:
      return dict.fromkeys(("capacity_bits", "kl_bits", "active_share"), float("nan"))
    mean, square, noise, kl = (total(acc[name]) / count for name in ("mean", "square", "noise", "kl"))
    signal = np.maximum(square - mean**2, 0.0)
    with np.errstate(divide="ignore", invalid="ignore"):
      ratio = np.where(signal > 0, signal / noise, 0.0)
    return {
      "capacity_bits": float(0.5 * np.log2(1 + ratio).sum()),
      "kl_bits": float(kl.sum() / math.log(2)),
      "active_share": float((kl >= self.active).mean()),
    }


@dataclasses.dataclass(frozen=True)
class CodeCapacity:
  """Usage and rate of discrete codes over a whole set.

  vocab: V, codes 0..V-1. groups: G where codes are [B,*s,G] with a table per group or level; 0 = [B,*s].
  sizes: tokens of each grid where codes are [B,N] of several grids (a bottleneck's `layout`); vocab may be one a grid.
  """

  vocab: int | tuple[int, ...]
  groups: int = 0
  sizes: tuple[int, ...] = ()

  @property
  def vocabs(self) -> tuple[int, ...]:
    """V of every group, or grid."""
    return self.vocab if isinstance(self.vocab, tuple) else (self.vocab,) * max(self.groups, len(self.sizes), 1)

  def init(self) -> Tree:
    """Counts of every code; those of shards add up leaf by leaf."""
    return {"counts": zeros(len(self.vocabs), max(self.vocabs)), "samples": zeros()}

  def update(self, acc: Tree, codes: Array, mask: Array, keep: Array | None = None) -> Tree:
    """codes [B,*s(,G)] int32; mask [B] bool; keep [B,*s] bool: tokens in use (None = all). Jit-able."""
    groups = max(self.groups, 1)
    codes = codes.reshape(len(codes), -1, groups)
    weight = jnp.broadcast_to(mask[:, None], codes.shape[:2])
    if keep is not None:
      weight = weight & keep.reshape(len(codes), -1)
    grids = np.repeat(np.arange(len(self.sizes)), self.sizes)[:, None]
    rows = jnp.broadcast_to(jnp.asarray(grids) if len(self.sizes) > 1 else jnp.arange(groups), codes.shape)
    ones = jnp.broadcast_to(weight[..., None], codes.shape).astype(jnp.float32)
    counts = jnp.zeros((len(self.vocabs), max(self.vocabs)), jnp.float32).at[rows, codes].add(ones)
    return {
      "counts": add(acc["counts"], counts),
      "samples": add(acc["samples"], mask.astype(jnp.float32).sum()),
    }

  def result(self, acc: Tree) -> dict[str, float]:
    """usage: share of codes that occur; perplexity: exp(entropy), a mean over groups like usage;

    entropy_bits: a token's, summed over its groups; rate_bits: a sample's tokens * log2 V;
    entropy_rate_bits: a sample's tokens * entropy. Usage needs many more tokens than codes. Of several grids both rates
    are sums over them, and "grid0_rate_bits", ... and "grid0_usage", ... are those of each.
    """
    counts, samples = total(acc["counts"]), total(acc["samples"])
    names = ("usage", "perplexity", "entropy_bits", "rate_bits", "entropy_rate_bits")
    if not samples or not counts.sum():
      return dict.fromkeys(names, float("nan"))
    share = counts / counts.sum(1, keepdims=True)
    entropy = -(share * np.log(np.where(share > 0, share, 1.0))).sum(1)  # nats, per group
    tokens = counts.sum(1) / samples  # equal for groups, but not for grids
    bits = entropy / math.log(2)
    usage = (counts > 0).sum(1) / np.asarray(self.vocabs)
    rates = tokens * np.log2(self.vocabs)
    values = (usage.mean(), np.exp(entropy).mean(), bits.sum(), rates.sum(), (tokens * bits).sum())
    found = {name: float(value) for name, value in zip(names, values, strict=True)}
    for i in range(len(self.sizes) if len(self.sizes) > 1 else 0):
      found |= {f"grid{i}_rate_bits": float(rates[i]), f"grid{i}_usage": float(usage[i])}
    return found
