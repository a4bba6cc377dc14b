"""How many intervals of a grid a consistency model is trained between, as training goes on.

Contract: frozen dataclasses; `counts`, the numbers of intervals in order; `__call__(update []) -> [] int32`, which of
them it is at a training pass (0 = the first).
"""

import dataclasses
import math

import jax.numpy as jnp

from latents.errors import UserError
from latents.types import Array


@dataclasses.dataclass(frozen=True)
class Doubling:
  """min(first 2^floor(k / K'), last), K' = floor(over / (log2(last / first) + 1)), at pass k of `over`.

  Improved consistency training: Song & Dhariwal 2023, arXiv:2310.14189, section 3.4. UserError for numbers that do not
  rise from 1.
  """

  first: int = 10
  last: int = 1280
  over: int = 400_000

  def __post_init__(self) -> None:
    _check(self.first, self.last, self.over)

  @property
  def counts(self) -> tuple[int, ...]:
    """See the room."""
    doublings = math.floor(math.log2(self.last / self.first))
    found = [self.first * 2**i for i in range(doublings + 1)]
    return tuple(found if found[-1] == self.last else [*found, self.last])

  def __call__(self, update: Array) -> Array:
    """See the room."""
    length = max(math.floor(self.over / (math.floor(math.log2(self.last / self.first)) + 1)), 1)
    return jnp.minimum(update // length, len(self.counts) - 1).astype(jnp.int32)


@dataclasses.dataclass(frozen=True)
class Rising:
  """ceil(sqrt(k / over ((last + 1)^2 - first^2) + first^2) - 1) at pass k: from first - 1 to last.

  Song et al. 2023, arXiv:2303.01469, appendix C (s_0 = first, s_1 = last). UserError as of `Doubling`, and for
  first < 2.
  """

  first: int = 2
  last: int = 150
  over: int = 800_000

  def __post_init__(self) -> None:
    _check(self.first - 1, self.last, self.over)

  @property
  def counts(self) -> tuple[int, ...]:
    """See the room."""
    return tuple(range(self.first - 1, self.last + 1))

  def __call__(self, update: Array) -> Array:
    """See the room."""
    low, high = self.first**2, (self.last + 1) ** 2
    number = jnp.ceil(jnp.sqrt(jnp.minimum(update / self.over, 1.0) * (high - low) + low) - 1)
    return (number - (self.first - 1)).astype(jnp.int32)


def _check(first: int, last: int, over: int) -> None:
  if not 1 <= first <= last or over < 1:
    raise UserError(f"the intervals of a consistency model rise from at least 1, not from {first} to {last} in {over}")
