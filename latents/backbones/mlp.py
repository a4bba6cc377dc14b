"""A residual MLP for latents that are one vector: MAR's (Li et al. 2024, arXiv:2406.11838, section 4.2), RCG's kind
(2312.03701)."""

import math

import flax.linen as nn
import jax.numpy as jnp

from latents.backbones.dit import zero_dense
from latents.nn.condition import embed_labels, entry
from latents.nn.linear import Dense
from latents.nn.norm import LayerNorm, modulate
from latents.nn.sharding import constrain
from latents.nn.time import embed_times
from latents.types import Array, Cond, later


class ResidualMLP(nn.Module):
  """x [B,*s,D], t [B] (or [B,n]: n times), cond or None -> [B,*s,out] float32; exactly 0 at the start.

  All numbers of a latent are one vector. Each of `depth` blocks is x + gate * MLP(LN(x) (1 + scale) + shift) of two
  layers of `width` with SiLU, by adaLN of time and class. classes, out: see `DiT`. told: numbers of a vector that the
  condition says beside, "told" [B,told], 0 = none (MAR's: what another network knows of x).
  """

  depth: int
  width: int
  classes: int = 0
  out: int | None = None
  dtype: str = "float32"
  told: int = later(0)

  @property
  def conditions(self) -> tuple[str, ...]:
    """Names of what it reads of a condition."""
    return (*(("label",) if self.classes else ()), *(("told",) if self.told else ()))

  @nn.compact
  def __call__(self, x: Array, t: Array, cond: Cond | None, *, train: bool = False) -> Array:
    """See the class."""
    del train  # no dropout
    batch, init = t.shape[0], nn.initializers.xavier_uniform()
    h = constrain(Dense(self.width, dtype=self.dtype, kernel_init=init, name="embed")(x.reshape(batch, -1)))
    c = embed_times(t, self.width, self.dtype)
    if self.classes:
      c = c + embed_labels(cond, self.classes, batch, self.width, self.dtype)
    if self.told:
      vector = jnp.zeros((batch, self.told)) if cond is None else entry(cond, "told")
      c = c + Dense(self.width, dtype=self.dtype, kernel_init=init, name="told")(vector)
    c = nn.silu(constrain(c))
    for i in range(self.depth):
      shift, scale, gate = jnp.split(zero_dense(3 * self.width, self.dtype, f"modulation_{i}")(c), 3, -1)
      y = modulate(nn.LayerNorm(1e-6, dtype=self.dtype, name=f"norm_{i}")(h), shift, scale)
      y = nn.silu(Dense(self.width, dtype=self.dtype, kernel_init=init, name=f"fc1_{i}")(y))
      h = constrain(h + gate * Dense(self.width, dtype=self.dtype, kernel_init=init, name=f"fc2_{i}")(y))
    shift, scale = jnp.split(zero_dense(2 * self.width, self.dtype, "final_modulation")(c), 2, -1)
    h = modulate(LayerNorm(dtype=self.dtype)(h), shift, scale)
    out = self.out or x.shape[-1]
    h = zero_dense(out * math.prod(x.shape[1:-1]), self.dtype, "final")(h)
    return h.reshape(*x.shape[:-1], out).astype(jnp.float32)
