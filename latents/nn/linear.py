"""The linear layer of all networks."""

import functools
from typing import Any

import flax.linen as nn
import jax

from latents.types import Array


def flat(x: Array, kernel: Array, numbers: Any = None, **options: Any) -> Array:
  """x [...,C], kernel [C,F] -> [...,F]: one product of two matrices, whatever the axes before the last.

  numbers: told by linen, and always these.
  The gradient of the kernel is then such a product too. With more axes XLA's CPU compiler writes a transposed copy of
  both factors, together with all that was to be added to them first.
  """
  y = jax.lax.dot_general(x.reshape(-1, x.shape[-1]), kernel, (((1,), (0,)), ((), ())), **options)
  return y.reshape(*x.shape[:-1], kernel.shape[-1])


Dense = functools.partial(nn.Dense, dot_general=flat)
