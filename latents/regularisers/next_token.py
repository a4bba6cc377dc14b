"""A small autoregressive prior inside stage 1: LARP (arXiv:2410.21264) and CRT (arXiv:2412.16326)."""

import dataclasses
from typing import Literal

import flax.linen as nn
import jax
import jax.numpy as jnp

from latents.backbones.causal import CausalBlock
from latents.losses.base import Loss, Term, Tree
from latents.nn.linear import Dense
from latents.nn.norm import RMSNorm
from latents.optim import Adam, Optimizer
from latents.types import Array, Seen


class NextVector(nn.Module):
  """z [B,N,D] -> the prediction of z_i from z_0 .. z_{i-1}, [B,N,D]; the first from a learned start."""

  width: int = 64
  depth: int = 2
  heads: int = 2
  multiple: int = 32

  @nn.compact
  def __call__(self, z: Array) -> Array:
    """See the class."""
    init = nn.initializers.normal(0.02)
    begin = self.param("start", init, (1, 1, self.width))
    before = Dense(self.width, name="embed")(z[:, :-1])
    h = jnp.concatenate([jnp.broadcast_to(begin, (z.shape[0], 1, self.width)), before], 1)
    h = h + self.param("positions", init, (z.shape[1], self.width))
    for i in range(self.depth):
      h = CausalBlock(self.width, self.heads, self.multiple, name=f"blocks_{i}")(h, False)
    return Dense(z.shape[-1], name="head")(RMSNorm(name="norm")(h))


@dataclasses.dataclass(frozen=True, kw_only=True)
class NextToken(Loss):
  """How well the next latent vector is foretold; its gradient shapes the encoder, and the prior is thrown away.

  against: "codes" = cross-entropy of the codes, logits = prediction . codebook (LARP): the gradient reaches the encoder
  through the prior's INPUTS alone, none the codebook; needs a bottleneck that shows its codebook. "vectors" = mean
  squared error (CRT): a z that shrinks by a shrinks the loss by a^2, so the scale must be held by something else.
  ramp: steps over which the weight grows from `start`. optimizer: the prior's. tap: the path of the part whose output
  [B,*s,D] is foretold in place of z (what stands before a quantiser).
  """

  network: NextVector = dataclasses.field(default_factory=NextVector)
  against: Literal["codes", "vectors"] = "vectors"
  ramp: int = 0
  optimizer: Optimizer = dataclasses.field(default_factory=Adam)
  tap: str = ""

  @property
  def optimizer_of(self) -> Optimizer:
    """The prior's."""
    return self.optimizer

  @property
  def reads(self) -> tuple[str, ...]:
    """The codebook [V,D], and the tap."""
    return (*(("bottleneck/codebook",) if self.against == "codes" else ()), *((self.tap,) if self.tap else ()))

  def gate(self, step: Array) -> Array:
    """step [] int -> [] in [0,1]: 0 before `start`, then linear over `ramp` steps."""
    return jnp.clip(jnp.asarray(step - self.start + 1, jnp.float32) / max(self.ramp, 1), 0.0, 1.0)

  def init(self, key: Array, seen: Seen, *, aux: Tree) -> Tree:
    """The prior's variables."""
    return dict(self.network.init(key, self._vectors(seen)))

  def measure(self, seen: Seen, own: Tree, *, aux: Tree, key: Array) -> Term:
    """z or the tap [B,*s,D], in raster order."""
    z = self._vectors(seen)
    guess = self.network.apply(own, z)
    if self.against == "vectors":
      return Term(jnp.square(guess - z).mean())
    codebook = jax.lax.stop_gradient(seen.taps["bottleneck/codebook"])
    chances = jax.nn.log_softmax(jnp.einsum("bnd,vd->bnv", guess, codebook))
    return Term(-jnp.take_along_axis(chances, rows(seen.codes[..., None]), -1).mean())

  def _vectors(self, seen: Seen) -> Array:
    return rows(seen.taps[self.tap] if self.tap else seen.z)


def rows(a: Array) -> Array:
  """[B,*s,D] -> [B,N,D]."""
  return a.reshape(a.shape[0], -1, a.shape[-1])
