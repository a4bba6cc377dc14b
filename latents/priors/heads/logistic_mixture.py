"""Pixels as a mixture of discretised logistics. PixelCNN++: Salimans, Karpathy, Chen, Kingma 2017, arXiv:1701.05517."""

import jax
import jax.numpy as jnp

from latents.errors import UserError
from latents.priors.heads.base import Head, categorical
from latents.types import Array, Latent

LEAST = -7.0  # log scales


class LogisticMixture(Head):
  """Elements: the C values (1 or 3) of a pixel, codes 0..levels-1 of `Symbols`, seen as numbers in [-1,1].

  dim: C. Section 2.1 and 2.2: one mixture of `components` for all channels of a pixel; within a component green's mean
  moves with red, blue's with red and green. The mass of a value is that of its bin, the outermost bins are open: masses
  of all `levels` sum to 1. Log scales are at least -7.
  out: per component a logit, C means, C log scales, and 3 coefficients (tanh) where C is 3.
  Temperature divides logits and multiplies scales. It knows no guidance.
  """

  dim: int = 3
  components: int = 10
  levels: int = 256

  discrete = True

  @property
  def vocabs(self) -> tuple[int, ...]:
    """One vocabulary for all channels."""
    return (self.levels,)

  @property
  def out(self) -> int:
    """See the class."""
    return self.components * (1 + 2 * self.dim + (3 if self.dim == 3 else 0))

  def read(self, latent: Latent) -> Array:
    """codes [B,*s,3], or [B,*s] where C is 1 -> [B,*s,C] in [-1,1]."""
    codes = latent.codes
    if codes is None:
      raise UserError("a mixture of logistics reads codes of raw values (Symbols), but this bottleneck is continuous")
    if self.dim not in (1, 3):
      raise UserError(f"pixels of a mixture of logistics have 1 or 3 channels, not {self.dim}")
    codes = codes[..., None] if self.dim == 1 else codes
    if codes.shape[-1] != self.dim:
      raise UserError(f"the mixture is of pixels of {self.dim} channels, but the codes have {codes.shape[-1]}")
    return codes.astype(jnp.float32) * (2 / (self.levels - 1)) - 1

  def write(self, x: Array) -> Latent:
    """[B,*s,C] in [-1,1] -> Latent(codes)."""
    codes = jnp.round((jnp.clip(x, -1, 1) + 1) / 2 * (self.levels - 1)).astype(jnp.int32)
    return Latent(codes=codes[..., 0] if self.dim == 1 else codes)

  def _parts(self, given: Array) -> tuple[Array, Array, Array, Array]:
    """[...,out] -> logits [...,K], means and log scales [...,K,C], coefficients [...,K,3 or 0]."""
    k, rest = self.components, given[..., self.components :].astype(jnp.float32)
    rest = rest.reshape(*given.shape[:-1], k, -1)
    means, scales, coefficients = jnp.split(rest, (self.dim, 2 * self.dim), -1)
    return given[..., :k].astype(jnp.float32), means, jnp.maximum(scales, LEAST), jnp.tanh(coefficients)

  def nll(self, given: Array, x: Array) -> Array:
    """Exact nats of the pixel."""
    logits, means, scales, told = self._parts(given)
    x = x[..., None, :]
    if self.dim == 3:
      red, green = x[..., 0], x[..., 1]
      shift = (jnp.zeros_like(told[..., 0]), told[..., 0] * red, told[..., 1] * red + told[..., 2] * green)
      means = means + jnp.stack(shift, -1)
    inverse, half = jnp.exp(-scales), 1 / (self.levels - 1)
    above, below = inverse * (x - means + half), inverse * (x - means - half)
    # log(s(a) - s(b)) = log s(a) + log s(-b) + log(1 - e^(b-a)): no difference of nearly equal numbers
    inner = jax.nn.log_sigmoid(above) + jax.nn.log_sigmoid(-below) + jnp.log(-jnp.expm1(-2 * half * inverse))
    first, last = x < -1 + half, x > 1 - half
    mass = jnp.where(first, jax.nn.log_sigmoid(above), jnp.where(last, jax.nn.log_sigmoid(-below), inner))
    return -jax.nn.logsumexp(jax.nn.log_softmax(logits) + mass.sum(-1), -1)

  def draw(self, keys: Array, given: Array, other: Array | None, guidance: float, temperature: float) -> Array:
    """A pixel, rounded to its levels."""
    if other is not None:
      raise UserError(f"a mixture of logistics has no guidance (asked for {guidance})")
    logits, means, scales, told = self._parts(given)
    split = jax.vmap(jax.random.split)(keys)
    chosen = categorical(split[:, 0], logits, temperature)
    means, scales, told = (jnp.take_along_axis(a, chosen[:, None, None], 1)[:, 0] for a in (means, scales, told))
    u = jax.vmap(lambda key: jax.random.uniform(key, (self.dim,), minval=1e-5, maxval=1 - 1e-5))(split[:, 1])
    noise = temperature * jnp.exp(scales) * (jnp.log(u) - jnp.log1p(-u))
    level = 2 / (self.levels - 1)
    values: list[Array] = []
    for c in range(self.dim):  # each channel moves with those already drawn and rounded
      mean = means[:, c]
      if c == 1:
        mean = mean + told[:, 0] * values[0]
      if c == 2:
        mean = mean + told[:, 1] * values[0] + told[:, 2] * values[1]
      values.append(jnp.round((jnp.clip(mean + noise[:, c], -1, 1) + 1) / level) * level - 1)
    return jnp.stack(values, -1)
