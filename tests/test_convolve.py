"""The convolution's own gradients for a CPU: jax's to rounding, in the order that XLA computes fast wherever it is."""

import itertools
import re

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from latents.nn.convolve import convolve
from tests import micro


def draw(*shape: int, seed: int = 0):
  return jnp.asarray(np.random.default_rng(seed).normal(size=shape).astype(np.float32))


def jaxs(x, kernel, stride, padding, dilation):
  axes = x.ndim - 2
  letters = "DHW"[3 - axes :]
  return jax.lax.conv_general_dilated(
    x, kernel, (stride,) * axes, padding, rhs_dilation=(dilation,) * axes,
    dimension_numbers=(f"N{letters}C", f"{letters}IO", f"N{letters}C"),
  )  # fmt: skip


CASES = [
  (axes, size, stride, padding, widths, dilation)
  for axes, size, stride, padding, widths, dilation in itertools.product(
    (1, 2), (1, 3, 4), (1, 2), ("SAME", (2, 1)), ((3, 5), (5, 3), (4, 40)), (1, 2)
  )
] + [(3, 3, stride, "VALID", widths, 1) for stride in (1, 3) for widths in ((3, 5), (5, 3))]


@pytest.mark.parametrize("axes", [1, 2, 3])
def test_gradients_and_tangents_are_jaxs(axes):
  """5 -> 3: few features; 4 -> 40: few positions."""
  for case in (c for c in CASES if c[0] == axes):
    _, size, stride, padding, (c, f), dilation = case
    padding = padding if isinstance(padding, str) else (padding,) * axes
    x, kernel = draw(2, *(9, 6, 7)[:axes], c), draw(*(size,) * axes, c, f, seed=1)

    @jax.jit
    def both(x, kernel, how=(stride, padding, dilation)):
      stride, padding, dilation = how
      ours = lambda x, k: convolve(x, k, stride, padding, dilation=dilation)
      theirs = lambda x, k: jaxs(x, k, stride, padding, dilation)
      found = []
      for conv in (ours, theirs):
        y, back = jax.vjp(conv, x, kernel)
        wave = jnp.cos(jnp.arange(y.size, dtype=jnp.float32)).reshape(y.shape)
        slope = jax.grad(lambda x, conv=conv: jnp.square(conv(x, kernel)).sum())
        square = jax.grad(lambda x, slope=slope: jnp.square(slope(x)).sum())
        found.append((y, back(wave), jax.jvp(conv, (x, kernel), (jnp.sin(x), jnp.sin(kernel))), square(x)))
      return found

    ours, theirs = both(x, kernel)
    for a, b in zip(jax.tree.leaves(ours), jax.tree.leaves(theirs), strict=True):
      np.testing.assert_allclose(a, b, rtol=0, atol=2e-5 * float(jnp.abs(b).max()), err_msg=str(case))


@pytest.mark.parametrize("widths", [(8, 16), (16, 8)])
@pytest.mark.parametrize("stride", [1, 2])
def test_in_a_conditional_all_convolutions_are_in_the_order_that_xla_is_fast_in(widths, stride):
  """XLA turns axes in the outermost computation alone; a judge learns in a conditional."""
  c, f = widths
  x, kernel = draw(4, 16, 16, c), draw(3, 3, c, f)
  grads = jax.grad(lambda x, k: jnp.square(convolve(x, k, stride)).sum(), (0, 1))
  program = jax.jit(lambda on, x, k: jax.lax.cond(on, grads, lambda x, k: (x, k), x, k))
  text = program.lower(True, x, kernel).as_text("hlo")
  orders = set(re.findall(r"dim_labels=(\S+?)[,\s]", text))
  assert orders == {"b01f_01io->b01f"}, orders


def test_what_is_not_differentiated_costs_nothing_and_other_platforms_have_jaxs_own_rule():
  x, kernel = draw(2, 16, 16, 4), draw(3, 3, 4, 4)
  one = jax.make_jaxpr(jax.grad(lambda x: convolve(x, kernel).sum()))(x)
  assert str(one).count("conv_general_dilated[") == 2  # forward, and back to x
  with micro.on_tpu():
    other = jax.make_jaxpr(jax.grad(lambda x: convolve(x, kernel).sum()))(x)
  theirs = jax.make_jaxpr(jax.grad(lambda x: jaxs(x, kernel, 1, "SAME", 1).sum()))(x)
  assert str(other) == str(theirs)
