"""How many bits codes carry, and how many of them are in use."""

import dataclasses
import math

import jax.numpy as jnp
import numpy as np

from latents.evaluate.latent.base import Held, LatentMetric, Layout
from latents.evaluate.sums import Tree, add, total, zeros
from latents.types import Latent


@dataclasses.dataclass(frozen=True)
class CodeCapacity(LatentMetric):
  """Usage and rate of discrete codes over a whole set; codebooks of groups, levels or grids may differ in size."""

  def fits(self, layout: Layout) -> bool:
    """Of codes."""
    return bool(layout.vocab)

  def init(self, layout: Layout) -> Tree:
    """Counts [G,V] of every code, and of examples."""
    return {"counts": zeros(len(layout.vocab), max(layout.vocab)), "samples": zeros()}

  def update(self, acc: Tree, latent: Latent, held: Held) -> Tree:
    """Counts the codes of tokens that the latent's mask keeps; -1, a stage left out, is none."""
    groups, vocab = acc["counts"]["high"].shape
    codes = latent.codes.reshape(len(latent.codes), -1, groups if held.grid is None else 1)
    weight = jnp.broadcast_to(held.mask[:, None], codes.shape[:2])
    if latent.mask is not None:
      weight = weight & latent.mask.reshape(len(codes), -1)
    rows = jnp.broadcast_to(jnp.arange(groups) if held.grid is None else held.grid[:, None], codes.shape)
    ones = (weight[..., None] & (codes >= 0)).astype(jnp.float32)
    counts = jnp.zeros((groups, vocab), jnp.float32).at[rows, codes].add(ones)
    samples = held.mask.astype(jnp.float32).sum()
    return {"counts": add(acc["counts"], counts), "samples": add(acc["samples"], samples)}

  def result(self, acc: Tree, layout: Layout) -> dict[str, float | list[float]]:
    """usage: share of codes that occur, and usage_ceiling: what so many tokens of a uniform code would use on average,
    1 - (1 - 1/V)^tokens; dead: codes that do not occur, of all groups; perplexity: exp(entropy). Means over groups.
    tokens_counted: how many tokens all of this is of.

    entropy_bits: a token's, summed over its groups; rate_bits (also "bits"): an example's tokens * sum of log2 V;
    entropy_rate_bits: an example's tokens * entropy. Usage needs many more tokens than codes. Of several grids rates
    are sums over them, and "grid0_rate_bits", "grid0_usage", ... are those of each.
    """
    counts, samples = total(acc["counts"]), total(acc["samples"])
    names = ("usage", "usage_ceiling", "dead", "perplexity", "entropy_bits", "rate_bits", "entropy_rate_bits", "bits")
    names = (*names, "tokens_counted")
    if not samples or not counts.sum():
      return dict.fromkeys(names, float("nan"))
    seen = counts.sum(1)
    share = counts / np.maximum(seen, 1)[:, None]
    entropy = -(share * np.log(np.where(share > 0, share, 1.0))).sum(1)  # nats, per group
    tokens = seen / samples  # equal for groups, not for grids
    bits, rates = entropy / math.log(2), tokens * np.log2(layout.vocab)
    used = (counts > 0).sum(1) / np.asarray(layout.vocab)
    rate = rates.sum()
    ceiling = -np.expm1(seen * np.log1p(-1 / np.asarray(layout.vocab, np.float64)))
    dead = (np.asarray(layout.vocab) - (counts > 0).sum(1)).sum()
    values = (used.mean(), ceiling.mean(), dead, np.exp(entropy).mean(), bits.sum(), rate, (tokens * bits).sum(), rate)
    values = (*values, seen.sum() if layout.sizes else seen.max())
    found: dict[str, float | list[float]] = {name: float(value) for name, value in zip(names, values, strict=True)}
    for i in range(len(layout.sizes)):
      found |= {f"grid{i}_rate_bits": float(rates[i]), f"grid{i}_usage": float(used[i])}
    return found
