"""The density that a flow gives to data: Chen et al. 2018, arXiv:1806.07366, eq. 8; FFJORD, arXiv:1810.01367; of a
diffusion by its probability flow, Song et al. 2021, arXiv:2011.13456, eq. 39."""

import dataclasses
import math
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from latents.diffusion.field import Field
from latents.errors import UserError
from latents.types import Array


@dataclasses.dataclass(frozen=True)
class Density:
  """-log p(x) in nats of each x [B,...], along the flow from the data to noise N(0, scale^2), where sampling starts.

    log p_0(x_0) = log N(x_1) + integral of div v(x_tau, tau) over tau,

  by Runge and Kutta's method of order 4 (four evaluations a step). The divergence is the mean over `probes` vectors of
  random signs (Hutchinson), or with probes = 0 exact: as many products with the Jacobian as x has numbers. The walk
  begins where sigma / alpha = least, at alpha x: no network tells the velocity at the data itself. UserError for no
  steps, fewer than no probes, or a least noise of 0.
  """

  steps: int = 50
  probes: int = 1
  least: float = 1e-3

  def __post_init__(self) -> None:
    if self.steps < 1 or self.probes < 0 or not self.least > 0:
      raise UserError(f"{self}: steps is at least 1, probes at least 0, least above 0")

  def __call__(self, field: Field, x: Array, times: np.ndarray, keys: Array) -> Array:
    """x [B,...], times [n+1] from 1 to 0 as for sampling, keys [B] of the signs -> [B] nats."""
    path, inner = field.path, tuple(range(1, x.ndim))
    first = path.time(np.array(-2 * math.log(self.least)))
    rising = np.concatenate([[first], times[times > first][::-1]])
    tangents = self._tangents(x, keys)

    def slopes(x: Array, tau: Array) -> tuple[Array, Array]:
      """The velocity [B,...] and its divergence [B]."""
      velocity, push = jax.linearize(lambda x: field(x, tau), x)
      along = lambda e: jnp.sum(e * push(jnp.broadcast_to(e, x.shape)), inner)  # noqa: E731
      found = jax.lax.map(along, tangents)
      return velocity, found.mean(0) if self.probes else found.sum(0)

    def step(carry: tuple[Array, Array], given: tuple[Array, Array]) -> tuple[Any, None]:
      (x, total), (now, h) = carry, given
      one, a = slopes(x, now)
      two, b = slopes(x + h / 2 * one, now + h / 2)
      three, c = slopes(x + h / 2 * two, now + h / 2)
      four, d = slopes(x + h * three, now + h)
      return (x + h / 6 * (one + 2 * two + 2 * three + four), total + h / 6 * (a + 2 * b + 2 * c + d)), None

    alpha = float(path.alpha(first))
    start = alpha * x, jnp.zeros(x.shape[0], x.dtype)
    grid: Any = jnp.asarray(rising[:-1], x.dtype), jnp.asarray(np.diff(rising), x.dtype)
    (end, total), _ = jax.lax.scan(step, start, grid)
    normal = jnp.sum((end / path.scale) ** 2, inner) / 2
    return (
      normal + math.prod(x.shape[1:]) * (math.log(2 * math.pi) / 2 + math.log(path.scale) - math.log(alpha)) - total
    )

  def _tangents(self, x: Array, keys: Array) -> Array:
    """[probes,B,...] random signs, those of example i by keys[i]; or the [n,...] unit vectors of an example."""
    if not self.probes:
      return jnp.eye(math.prod(x.shape[1:]), dtype=x.dtype).reshape(-1, *x.shape[1:])
    draw = lambda key: jax.random.rademacher(key, (self.probes, *x.shape[1:]), x.dtype)  # noqa: E731
    return jnp.moveaxis(jax.vmap(draw)(keys), 1, 0)
