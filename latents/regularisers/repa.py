"""Alignment of a denoiser's hidden layer with features of the clean signal: REPA (Yu et al. 2024, arXiv:2410.06940)."""

import dataclasses
import math

import flax.linen as nn
import jax
import jax.numpy as jnp

from latents.errors import UserError
from latents.losses.base import Loss, Term, Tree
from latents.nn.linear import Dense
from latents.regularisers.alignment import unit
from latents.regularisers.teachers import Teacher
from latents.types import Array, Seen


class Head(nn.Module):
  """tokens [B,N,E] -> [B,N,out]: the paper's three-layer perceptron with SiLU."""

  width: int
  out: int

  @nn.compact
  def __call__(self, h: Array) -> Array:
    """See the class."""
    h = jax.nn.silu(Dense(self.width, name="in")(h))
    h = jax.nn.silu(Dense(self.width, name="mid")(h))
    return Dense(self.out, name="out")(h)


@dataclasses.dataclass(frozen=True, kw_only=True)
class REPA(Loss):
  """-mean over tokens of cos(head(h), f): eq. 8 of the paper, whose weight is 0.5.

  tap: the path of the block whose output h [B,N,E] is aligned ("backbone/blocks_7" of 28). teacher: gives f for the
  clean signal on the grid of N tokens, whose sides are to each other as the signal's; so stage 2 must read signals, not
  a cache of latents. width: of the head, which is trained with the stage's optimiser and thrown away. What lies behind
  the tap feels nothing of it.
  """

  teacher: Teacher
  tap: str
  width: int = 2048

  @property
  def reads(self) -> tuple[str, ...]:
    """The block."""
    return (self.tap,)

  @property
  def stage(self) -> object:
    """The teacher's, if it has one."""
    return self.teacher.of

  def load(self) -> Tree:
    """The teacher's parameters."""
    return self.teacher.load()

  def abstract(self) -> Tree:
    """Their shapes."""
    return self.teacher.abstract()

  def init(self, key: Array, seen: Seen, *, aux: Tree) -> Tree:
    """The head's variables."""
    return dict(self._head(self._features(seen, aux)).init(key, seen.taps[self.tap]))

  def measure(self, seen: Seen, own: Tree, *, aux: Tree, key: Array) -> Term:
    """The tap against the features."""
    f = jax.lax.stop_gradient(self._features(seen, aux))
    guess: Array = self._head(f).apply(own, seen.taps[self.tap])
    return Term(-jnp.sum(unit(guess) * unit(f), -1).mean())

  def _features(self, seen: Seen, aux: Tree) -> Array:
    if seen.signal is None:
      raise UserError("REPA's teacher needs the signal, but stage 2 reads cached latents: set --stage2.cache False")
    tokens, (height, width) = seen.taps[self.tap].shape[1], seen.signal.shape[1:3]
    rows = math.isqrt(tokens * height // width)
    columns = tokens // max(rows, 1)
    if rows * columns != tokens or rows * width != columns * height:
      raise UserError(f"REPA needs a grid of tokens like the signal's {height} x {width}; '{self.tap}' gives {tokens}")
    f = self.teacher.features(aux, seen.signal, (rows, columns))
    return f.reshape(f.shape[0], tokens, f.shape[-1])

  def _head(self, f: Array) -> Head:
    return Head(self.width, f.shape[-1])
