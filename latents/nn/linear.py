"""The linear layer of all networks."""

import functools
from typing import Any

import flax.linen as nn
import jax

from latents.nn.sharding import on_cpu
from latents.types import Array


def product(x: Array, kernel: Array, numbers: Any = None, **options: Any) -> Array:
  """x [...,C], kernel [C,F] -> [...,F].

  For a CPU one product of two matrices, whatever the axes before the last; the gradient of the kernel is then such a
  product too. With more axes XLA's CPU compiler writes a transposed copy of both factors, together with all that was to
  be added to them first. TPUs' and GPUs' compilers do well with axes, and need a little less memory.
  numbers: told by linen, and always these.
  """
  last = (((x.ndim - 1,), (0,)), ((), ()))
  if x.ndim == 2 or not on_cpu():
    return jax.lax.dot_general(x, kernel, last, **options)
  y = jax.lax.dot_general(x.reshape(-1, x.shape[-1]), kernel, (((1,), (0,)), ((), ())), **options)
  return y.reshape(*x.shape[:-1], kernel.shape[-1])


Dense = functools.partial(nn.Dense, dot_general=product)
