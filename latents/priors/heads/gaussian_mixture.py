"""Real-valued tokens as a mixture of Gaussians. GIVT: Tschannen, Eastwood, Mentzer 2023, arXiv:2312.02116."""

import math

import jax
import jax.numpy as jnp

from latents.priors.heads.base import Head, categorical
from latents.types import Array

LEAST = 1e-6  # of a deviation: without a floor nats fall without end


class GaussianMixture(Head):
  """Elements: z [B,*s,dim]; `components` diagonal Gaussians.

  out: per component a logit, dim means, and dim numbers x that give deviations (x + sqrt(x^2 + 4)) / 2, 1 at x = 0, at
  least 1e-6. nats are of a density: they may be negative.
  Temperature multiplies deviations (the paper's t of 0.95), not logits; 0 takes the likeliest component's mean.
  Guidance s = 1 + w (section 3.5): p_c(x)^s p_u(x)^(1-s) of one component, drawn by p_c and taken of both; a Gaussian
  again, of precision s / sigma_c^2 + (1 - s) / sigma_u^2, drawn from exactly. Numbers for which it is none, or wider
  than 2 max(sigma_c, sigma_u), the widest that the paper proposes from, are drawn from p_c.
  """

  dim: int
  components: int = 16

  @property
  def out(self) -> int:
    """See the class."""
    return self.components * (1 + 2 * self.dim)

  def _parts(self, given: Array) -> tuple[Array, Array, Array]:
    """[...,out] -> logits [...,K], means and deviations [...,K,dim]."""
    given = given.astype(jnp.float32)
    rest = given[..., self.components :].reshape(*given.shape[:-1], self.components, 2 * self.dim)
    mean, raw = jnp.split(rest, 2, -1)
    root = jnp.sqrt(raw**2 + 4)
    deviation = jnp.where(raw > 0, (raw + root) / 2, 2 / (root - jnp.minimum(raw, 0)))  # no difference of like numbers
    return given[..., : self.components], mean, jnp.maximum(deviation, LEAST)

  def nll(self, given: Array, x: Array) -> Array:
    """Exact nats of the density at x."""
    logits, mean, deviation = self._parts(given)
    z = (x[..., None, :] - mean) / deviation
    log_p = (-0.5 * z**2 - jnp.log(deviation) - 0.5 * math.log(2 * math.pi)).sum(-1)
    return -jax.nn.logsumexp(jax.nn.log_softmax(logits) + log_p, -1)

  def draw(self, keys: Array, given: Array, other: Array | None, guidance: float, temperature: float) -> Array:
    """See the class."""
    logits, *conditional = self._parts(given)
    split = jax.vmap(jax.random.split)(keys)
    chosen = categorical(split[:, 0], logits, 0.0 if temperature == 0.0 else 1.0)
    pick = lambda a: jnp.take_along_axis(a, chosen[:, None, None], 1)[:, 0]  # noqa: E731
    mean, deviation = map(pick, conditional)
    if other is not None:
      mean_u, deviation_u = map(pick, self._parts(other)[1:])
      own, theirs = guidance / deviation**2, (1 - guidance) / deviation_u**2
      precision = own + theirs
      fits = precision >= 0.25 / jnp.maximum(deviation, deviation_u) ** 2
      precision = jnp.where(fits, precision, 1.0)
      mean = jnp.where(fits, (own * mean + theirs * mean_u) / precision, mean)
      deviation = jnp.where(fits, jax.lax.rsqrt(precision), deviation)
    noise = jax.vmap(lambda key: jax.random.normal(key, (self.dim,)))(split[:, 1])
    return mean + temperature * deviation * noise
