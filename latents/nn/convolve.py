"""The convolution of all networks.

XLA's CPU compiler (jaxlib 0.10) puts a convolution's axes into the one order that it computes fast for the program's
outermost computation alone. The gradients that jax's own rule makes have another order: inside a conditional (a judge
that waits), a loop (microbatches, blocks by `scan`) or a call they take 5 times (of the signal) and 60 times (of the
kernel) as long. So for a CPU they are written here, in that order from the start; for TPUs and GPUs they are jax's.
"""

import functools
import itertools
import math
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp

from latents.nn.linear import product
from latents.nn.sharding import on_cpu
from latents.types import Array

Sizes = int | tuple[int, ...]
How = tuple[tuple[int, ...], tuple[tuple[int, int], ...], tuple[int, ...]]  # by axis: stride, padding, dilation


def convolve(
  x: Array, kernel: Array, stride: Sizes = 1, padding: Any = "SAME", groups: int = 1, dilation: Sizes = 1
) -> Array:
  """x [B,*S,C], kernel [size...,C/groups,F] of the same dtype -> [B,*S',F]; padding: as of `jax.lax`'s convolution.

  stride, dilation (of the kernel's taps): of all axes, or by axis.
  """
  axes, taps = x.ndim - 2, kernel.shape[:-2]
  strides, dilations = (n if isinstance(n, tuple) else (n,) * axes for n in (stride, dilation))
  if groups > 1 or not on_cpu():
    return _plain(x, kernel, strides, padding, rhs_dilation=dilations, feature_group_count=groups)
  if isinstance(padding, str):
    wide = [(n - 1) * d + 1 for n, d in zip(taps, dilations, strict=True)]
    padding = jax.lax.padtype_to_pads(x.shape[1:-1], wide, strides, padding)
  if set(taps) == set(strides) == {1} and not any(map(any, padding)):
    return product(x, kernel.reshape(kernel.shape[-2:]))
  return _on_cpu(x, kernel, (strides, tuple(tuple(pair) for pair in padding), dilations))


def _plain(x: Array, kernel: Array, strides: Any, padding: Any, **options: Any) -> Array:
  letters = "DHW"[5 - x.ndim :]
  numbers = ("N" + letters + "C", letters + "IO", "N" + letters + "C")
  return jax.lax.conv_general_dilated(x, kernel, strides, padding, dimension_numbers=numbers, **options)


@functools.partial(jax.custom_jvp, nondiff_argnums=(2,))
def _on_cpu(x: Array, kernel: Array, how: How) -> Array:
  strides, padding, dilations = how
  return _plain(x, kernel, strides, padding, rhs_dilation=dilations)


@functools.partial(_on_cpu.defjvp, symbolic_zeros=True)
def _tangent(how: How, primals: tuple, tangents: tuple) -> tuple[Array, Array]:
  """Of each factor the transpose of its gradient: transposed again, in the backward pass, it is that gradient."""
  x, kernel = primals
  y = _on_cpu(x, kernel, how)
  backs = (lambda g: _to_signal(g, x, kernel, how), lambda g: _to_kernel(g, x, kernel, how))
  pushed = [
    jax.linear_transpose(back, y)(push)[0]
    for back, push in zip(backs, tangents, strict=True)
    if not isinstance(push, jax.custom_derivatives.SymbolicZero)
  ]
  return y, sum(pushed[1:], pushed[0]) if pushed else jnp.zeros_like(y)


def _to_signal(g: Array, x: Array, kernel: Array, how: How) -> Array:
  """[B,*S',F] -> [B,*S,C]: the gradient at x.

  A transposed copy of the kernel is more work than a sum of one product a tap where g has few positions.
  """
  strides, _, dilations = how
  sizes = _sizes(g, x, kernel, how)
  if math.prod(g.shape[:-1]) <= 2 * g.shape[-1]:
    taps = list(itertools.product(*map(range, kernel.shape[:-2])))
    parts = jnp.split(product(g, kernel.reshape(-1, kernel.shape[-1]).T), len(taps), -1)
    return sum((_placed(part, tap, sizes, how) for part, tap in zip(parts, taps, strict=True)), jnp.zeros_like(x))
  pads = [(k - 1 - low, n - m + low) for n, m, k, low in sizes]
  turned = jnp.flip(kernel, range(kernel.ndim - 2)).swapaxes(-1, -2)
  return _plain(g, turned, (1,) * len(strides), pads, lhs_dilation=strides, rhs_dilation=dilations)


def _to_kernel(g: Array, x: Array, kernel: Array, how: How) -> Array:
  """[B,*S',F] -> [size...,C,F]: the gradient at the kernel, x as the signal and g as the kernel, channels as the batch.

  Where F is less than C they change places, for a kernel of few features is slow.
  """
  strides, _, dilations = how
  axes, sizes = range(1, x.ndim - 1), _sizes(g, x, kernel, how)
  signal, taps = (x.ndim - 1, *axes, 0), (*axes, 0, x.ndim - 1)
  if g.shape[-1] < x.shape[-1]:
    pads = [(k - 1 - low, n - m + low) for n, m, k, low in sizes]
    found = _plain(g.transpose(signal), x.transpose(taps), dilations, pads, lhs_dilation=strides)
    return jnp.flip(found, axes).transpose(*axes, x.ndim - 1, 0)
  pads = [(low, k - 1 + m - n - low) for n, m, k, low in sizes]
  found = _plain(x.transpose(signal), g.transpose(taps), dilations, pads, rhs_dilation=strides)
  return found.transpose(*axes, 0, x.ndim - 1)


def _placed(part: Array, tap: tuple[int, ...], sizes: list[tuple[int, ...]], how: How) -> Array:
  """[B,*S',C], what a tap gives to the signal -> [B,*S,C]: where it belongs, and zeros."""
  axes = []
  for t, (n, m, _, low), stride, dilation in zip(tap, sizes, how[0], how[2], strict=True):
    start = t * dilation - low
    axes.append((start, n - m - start, stride - 1))
  return jax.lax.pad(part, jnp.zeros((), part.dtype), [(0, 0, 0), *axes, (0, 0, 0)])


def _sizes(g: Array, x: Array, kernel: Array, how: How) -> list[tuple[int, ...]]:
  """By axis: the lengths of the signal, of g with its strides and of the kernel with its dilation; zeros in front."""
  strides, padding, dilations = how
  lengths = zip(x.shape[1:-1], g.shape[1:-1], kernel.shape[:-2], strides, padding, dilations, strict=True)
  return [(n, (m - 1) * s + 1, (k - 1) * d + 1, low) for n, m, k, s, (low, _), d in lengths]


def _flax(x: Array, kernel: Array, strides: Any, padding: Any, **told: Any) -> Array:
  """As linen calls it; it tells order of axes and precision too, which are always these."""
  if any(n != 1 for n in told["lhs_dilation"]):
    raise TypeError("a convolution whose signal is dilated is none of these")
  return convolve(x, kernel, tuple(strides), padding, told["feature_group_count"], tuple(told["rhs_dilation"]))


FlaxConv = functools.partial(nn.Conv, conv_general_dilated=_flax)  # linen's layer, with its own initial weights
