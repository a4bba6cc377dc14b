"""The diagonal Gaussian of a VAE (Kingma & Welling 2013, arXiv:1312.6114; LDM's "KL-reg", arXiv:2112.10752)."""

import math
from typing import Any, Literal

import jax
import jax.numpy as jnp

from latents.bottlenecks.base import Bottleneck, pointwise
from latents.errors import UserError
from latents.types import Array, Latent, later


class KL(Bottleneck):
  """[B,*s,E] -> z [B,*s,D] ~ N(mean, std^2); LDM's `quant_conv` E -> 2D gives mean and log-variance.

  train: z is a sample (rng "bottleneck"); else z is the mean. The log-variance is clipped to [-30, 20] as in LDM.
  terms: {"kl"}: KL(q(z|x) || N(0,1)) in nats, mean over batch AND latent elements.
  logs: {"kl_sum"}: nats per sample (sum over elements, mean over batch); {"std_mean"}.

  LDM writes the sum over all elements divided by B, with reconstruction terms summed likewise:
    L = N_x mean|x - x_hat| + w sum(kl)/B = N_x (mean|x - x_hat| + w / TSR * kl),  TSR = N_x / N_z,
  so its weight w = 1e-6 is w / TSR here (2.1e-8 for the f8c4 of Stable Diffusion).

  spread: the standard deviation at the start (of a zero h). LDM's is 1, several times that of the first means: for
  hundreds of steps little but noise comes through, and short runs want 0.1. projected: False where the encoder gives
  mean and log-variance itself (Stable Diffusion 3, FLUX), without `quant_conv`: E features as many as `moments`;
  spread is then a factor of the standard deviation.
  variance: of each number of the latent ("element"); one for all channels of a position ("uniform", LTX-Video,
  arXiv:2501.00103: with variances of their own, channels are given up one by one); or `spread`^2 always ("constant":
  the mean alone is learned; LTX's logarithm -30 is a spread of 3e-7).
  """

  dim: int = 4
  spread: float = 1.0
  projected: bool = later(True)
  variance: Literal["element", "uniform", "constant"] = later("element")

  @property
  def moments(self) -> int:
    """Features that say mean and variance: 2D, D + 1 or D."""
    return self.dim + {"element": self.dim, "uniform": 1, "constant": 0}[self.variance]

  def setup(self) -> None:
    """Makes the projection. UserError for a spread that is none."""
    if self.spread <= 0:
      raise UserError(f"the spread of a KL latent is {self.spread}: it must be above 0")
    centre = 2 * math.log(self.spread)

    def bias(key: Array, shape: tuple[int, ...], dtype: Any) -> Array:
      return jnp.concatenate([jnp.zeros(self.dim, dtype), jnp.full(self.moments - self.dim, centre, dtype)])

    if self.projected:
      self.project = pointwise(self.moments, bias)

  def __call__(self, h: Array, *, train: bool) -> Latent:
    """[B,*s,E] -> Latent with terms and logs."""
    mean, logvar = self._moments(h)
    std = jnp.exp(0.5 * logvar)
    kl = 0.5 * (jnp.square(mean) + jnp.square(std) - 1.0 - logvar)
    elements = kl.size // kl.shape[0]
    return Latent(
      z=self._draw(mean, std, train),
      terms={"kl": kl.mean()},
      logs={"kl_sum": kl.mean() * elements, "std_mean": std.mean()},
    )

  def store(self, h: Array) -> Array:
    """[B,*s,E] -> [B,*s,2D]: mean and standard deviation, concatenated."""
    mean, logvar = self._moments(h)
    return jnp.concatenate([mean, jnp.exp(0.5 * logvar)], -1)

  def recall(self, stored: Array, *, train: bool) -> Latent:
    """[B,*s,2D] -> Latent: a sample if train, else the mean."""
    return Latent(z=self._draw(*self.posterior(stored), train))

  def posterior(self, stored: Array) -> tuple[Array, Array]:
    """[B,*s,2D] -> mean, std [B,*s,D]."""
    mean, std = jnp.split(stored.astype(jnp.float32), 2, -1)
    return mean, std

  def _moments(self, h: Array) -> tuple[Array, Array]:
    h = h.astype(jnp.float32)
    if not self.projected and h.shape[-1] != self.moments:
      raise UserError(f"without a projection, {self.dim} channels want {self.moments} features, not {h.shape[-1]}")
    mean, logvar = jnp.split(self.project(h) if self.projected else h, (self.dim,), -1)
    if not self.projected:
      logvar = logvar + 2 * math.log(self.spread)
    if self.variance == "constant":
      logvar = jnp.full(mean.shape, 2 * math.log(self.spread))
    return mean, jnp.broadcast_to(jnp.clip(logvar, -30.0, 20.0), mean.shape)

  def _draw(self, mean: Array, std: Array, train: bool) -> Array:
    if not train:
      return mean
    return mean + std * jax.random.normal(self.make_rng("bottleneck"), mean.shape)
