"""Moments of the channels of a latent over examples and places, and measures that are functions of them."""

import abc
import dataclasses
from typing import ClassVar

import jax.numpy as jnp
import numpy as np

from latents.evaluate.latent.base import Held, LatentMetric, Layout
from latents.evaluate.sums import Tree, add, sum_kept, total, zeros
from latents.types import Array, Latent


@dataclasses.dataclass(frozen=True)
class TokenMetric(LatentMetric):
  """A metric of tokens z [D], wherever they stand: sums of their powers and products over the tokens that are kept."""

  keys: ClassVar[tuple[str, ...]] = ()

  @abc.abstractmethod
  def sums(self, tokens: Array) -> dict[str, Array]:
    """[B,N,D] -> what is summed over tokens, [B,N,...] by name."""

  @abc.abstractmethod
  def of(self, means: dict[str, np.ndarray]) -> dict[str, float | list[float]]:
    """Means over the tokens by name, float64 -> {name: value}."""

  def init(self, layout: Layout) -> Tree:
    """Sums and the number of tokens."""
    shapes = self.sums(np.zeros((1, 1, layout.latent.z.shape[-1]), np.float32))
    return {"count": zeros(), **{name: zeros(*value.shape[2:]) for name, value in shapes.items()}}

  def update(self, acc: Tree, latent: Latent, held: Held) -> Tree:
    """Padding and tokens that the latent's mask drops count nothing."""
    z = latent.z.astype(jnp.float32)
    tokens = z.reshape(len(z), -1, z.shape[-1])
    keep = jnp.broadcast_to(held.mask[:, None], tokens.shape[:2])
    if latent.mask is not None:
      keep = keep & latent.mask.reshape(keep.shape)
    parts = self.sums(tokens)
    flat = {name: sum_kept(v.reshape(-1, *v.shape[2:]), keep.reshape(-1)) for name, v in parts.items()}
    return {"count": add(acc["count"], keep.astype(jnp.float32).sum()), **{k: add(acc[k], v) for k, v in flat.items()}}

  def result(self, acc: Tree, layout: Layout) -> dict[str, float | list[float]]:
    """See `of`."""
    count = total(acc["count"])
    if not count:
      return dict.fromkeys(self.keys, float("nan"))
    return self.of({name: total(a) / count for name, a in acc.items() if name != "count"})
