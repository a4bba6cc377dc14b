"""What a causal network without a cache of its own does to be drawn from: the whole pass, once an element."""

from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp

from latents.types import Array, Cond


class Stepwise(nn.Module):
  """A network whose row i of L reads what stands before i: `__call__(x [B,L] or [B,L,D], cond, *, train) -> [B,L,V]`.

  Its cache is what has been drawn, and a step is a full pass of which one row is kept: L passes a sample, so draw few
  at a time. `length` and `width_in` say what is modelled: D numbers an element, 0 where elements are tokens.
  """

  layout = ()
  places = 0
  groups = 1
  width_in = 0

  def cache(self, batch: int, cond: Cond | None = None) -> Any:
    """What has been drawn of `batch` sequences: nothing."""
    length: int = self.length  # pyright: ignore[reportAttributeAccessIssue]
    if self.width_in:
      return jnp.zeros((batch, length, self.width_in), jnp.float32)
    return jnp.zeros((batch, length), jnp.int32)

  def step(
    self, x: Array, cond: Cond | None, index: Array, cache: Any, place: Array | None = None
  ) -> tuple[Array, Any]:
    """x [B] or [B,D], element index-1 (ignored at index 0) -> (row `index` [] of the full pass [B,V], the cache)."""
    at = jnp.maximum(index - 1, 0)
    cache = jax.lax.dynamic_update_slice_in_dim(cache, x[:, None].astype(cache.dtype), at, 1)
    rows = self(cache, cond, train=False)  # at index 0 nothing is read of element 0, whatever stands there
    return jax.lax.dynamic_index_in_dim(rows, index, 1, keepdims=False), cache
