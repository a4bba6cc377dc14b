"""How much a token says of its neighbour."""

import dataclasses
import math

import jax.numpy as jnp
import numpy as np

from latents.evaluate.latent.base import Held, LatentMetric, Layout
from latents.evaluate.sums import Tree, add, sum_kept, total, zeros
from latents.types import Latent


@dataclasses.dataclass(frozen=True)
class Smoothness(LatentMetric):
  """{"neighbour_correlation": 1 - E|z_i - z_j|^2 / (2 Var[z])} over next neighbours i, j along all latent axes.

  Means over examples, places and channels; Var[z] is the channel's, around its mean over everything. 1 for latents
  without detail, 0 for white noise, -1 for a checkerboard. A mask of tokens is not heeded.
  """

  def fits(self, layout: Layout) -> bool:
    """Of latents with an axis to be smooth along."""
    return layout.latent.z is not None and max(layout.latent.z.shape[:-1], default=1) > 1

  def init(self, layout: Layout) -> Tree:
    """Sums over examples, of means over places."""
    channels = layout.latent.z.shape[-1:]
    return {"first": zeros(*channels), "second": zeros(*channels), "steps": zeros(*channels), "count": zeros()}

  def update(self, acc: Tree, latent: Latent, held: Held) -> Tree:
    """See the class."""
    z = latent.z.astype(jnp.float32)
    places = tuple(range(1, z.ndim - 1))
    steps = [jnp.square(jnp.diff(z, axis=axis)) for axis in places if z.shape[axis] > 1]
    pairs = sum(math.prod(s.shape[1:-1]) for s in steps)
    each = {
      "first": z.mean(places),
      "second": jnp.square(z).mean(places),
      "steps": sum((s.sum(places) for s in steps), jnp.zeros(())) / pairs,
    }
    sums = {name: add(acc[name], sum_kept(value, held.mask)) for name, value in each.items()}
    return sums | {"count": add(acc["count"], held.mask.astype(jnp.float32).sum())}

  def result(self, acc: Tree, layout: Layout) -> dict[str, float | list[float]]:
    """See the class; nan where nothing varies."""
    count = total(acc["count"])
    if not count:
      return {"neighbour_correlation": float("nan")}
    first, second, steps = (total(acc[name]) / count for name in ("first", "second", "steps"))
    variance = np.maximum(second - first**2, 0.0).mean()
    return {"neighbour_correlation": float(1 - steps.mean() / (2 * variance)) if variance else float("nan")}
