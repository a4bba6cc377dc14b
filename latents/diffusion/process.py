"""What a network predicts along a path, and what it is compared with."""

import dataclasses
import math
from typing import Literal

import jax
import jax.numpy as jnp

from latents.diffusion.field import Field, Network, split
from latents.diffusion.guidance import guide
from latents.diffusion.paths import Betas, Cosine, Exploding, Kind, Linear, spread
from latents.diffusion.posterior import posterior
from latents.diffusion.weights import MinSNR
from latents.types import Array, later

VLB = 1e-3  # the weight of the bound beside the simple loss (iDDPM, section 3.1)


@dataclasses.dataclass(frozen=True)
class Process:
  """The default is flow matching: the velocity of the linear path.

  predict: what the network gives; "edm" is F of EDM's preconditioning (Karras et al. 2022, arXiv:2206.00364, table 1)
  in y = x / alpha, s = sigma / alpha, for data of the deviation data_std: data = c_skip y + c_out F(c_in y, ln(s) / 4)
  (the network is told a thousandth of ln(s) / 4: backbones embed 1000 t). compare: as what it is compared, None = as
  predicted. weight: over noise levels; None = 1 on the error that is compared. variance: "learned" = the network gives
  2D channels, of which the second half is where the log variance of a reverse step lies between its two bounds. least:
  of "edm", the noise s up to which the estimate is y itself: c_skip(least) = 1, c_out(least) = 0 (consistency models,
  arXiv:2303.01469, appendix C); 0 is EDM's own.
  """

  path: Linear | Betas | Cosine | Exploding = Linear()
  predict: Literal["velocity", "data", "noise", "edm"] = "velocity"
  compare: Literal["velocity", "data", "noise"] | None = None
  weight: MinSNR | None = None
  variance: Literal["none", "learned"] = "none"
  data_std: float = later(0.5)
  least: float = later(0.0)

  def width(self, channels: int) -> int:
    """Channels that a network must give for data of `channels`."""
    return channels * (2 if self.variance == "learned" else 1)

  def inputs(self, x: Array, tau: Array) -> tuple[Array, Array]:
    """(x [B,...], tau [B]) -> the same as the network sees them."""
    if self.predict != "edm":
      return x, tau
    alpha = self.path.alpha(tau)
    s = jnp.maximum(self.path.sigma(tau) / alpha, self.path.floor)
    return x * spread(jax.lax.rsqrt(s**2 + self.data_std**2) / alpha, x), jnp.log(s) / 4000

  def read(self, estimate: Array, x: Array, tau: Array) -> tuple[Array, Kind]:
    """What a network gives at (x, tau) -> the estimate, and as what: F as data, all else as it is."""
    if self.predict != "edm":
      return estimate, self.predict
    alpha = self.path.alpha(tau)
    skip = self.data_std**2 / (self._beyond(self.path.sigma(tau) / alpha) ** 2 + self.data_std**2)
    return spread(skip / alpha, x) * x + spread(self._c_out(tau), x) * estimate, "data"

  def _c_out(self, tau: Array) -> Array:
    s = self.path.sigma(tau) / self.path.alpha(tau)
    return self._beyond(s) * self.data_std * jax.lax.rsqrt(s**2 + self.data_std**2)

  def _beyond(self, s: Array) -> Array:
    """By how much noise is more than the least."""
    return jnp.maximum(s - self.least, 0.0) if self.least else s

  def terms(self, out: Array, x0: Array, eps: Array, x: Array, tau: Array) -> dict[str, tuple[Array, float]]:
    """name -> (error of each element [B,...,D], weight of its mean).

    "flow": the weighed squared error. With a learned variance also "vlb", the bound in bits, T times its term of one
    random step, with iDDPM's weight; its gradient reaches the variance alone (arXiv:2102.09672, section 3.1).
    out: the network's at (x, tau), x = path.mix(x0, eps, tau), tau [B].
    """
    estimate, share = split(out, self.variance == "learned")
    estimate, given = self.read(estimate, x, tau)
    kind: Kind = self.compare or given
    target = {"data": x0, "noise": eps}[kind] if kind != "velocity" else self.path.velocity(x0, eps, tau)
    error = jnp.square(self.path.convert(estimate, given, kind, x, tau) - target)
    if self.weight is not None:
      error = error * spread(self.weight(self.path.log_snr(tau)) / self.path.unit(kind, tau) ** 2, x)
    elif self.predict == "edm" and self.compare is None:  # as F: the error in the data over c_out
      error = error / spread(jnp.maximum(self._c_out(tau), self.path.floor) ** 2, x)
    if share is None:
      return {"flow": (error, 1.0)}
    data = jax.lax.stop_gradient(self.path.convert(estimate, given, "data", x, tau))
    return {"flow": (error, 1.0), "vlb": (self._bound(data, share, x0, tau), VLB)}

  def _bound(self, data: Array, share: Array, x0: Array, tau: Array) -> Array:
    """T L_(t-1) in bits: KL(q(x_s | x_t, x0) | N(mean of the estimate, learned)), s = t - 1/T; the last step, to
    s = 0, is the negative log density of x0 (continuous: latents have no levels that it could be cut into)."""
    steps = self.path.steps
    last = spread(tau < 1.5 / steps, x0) > 0
    now = jnp.maximum(tau, 2 / steps)  # the last step has the small variance of the one before it, its own is 0
    within = posterior(self.path, now, now - 1 / steps)
    final = posterior(self.path, jnp.minimum(tau, 1.5 / steps), jnp.zeros_like(tau))
    small = spread(within.small, x0)
    large = jnp.where(last, spread(final.large, x0), spread(within.large, x0))
    log_variance = share * jnp.log(large) + (1 - share) * jnp.log(small)
    miss = jnp.square(x0 - data) * jnp.where(last, 1.0, spread(within.of_data, x0) ** 2)
    kl = log_variance - jnp.log(small) - 1 + (small + miss) * jnp.exp(-log_variance)
    density = math.log(2 * math.pi) + log_variance + miss * jnp.exp(-log_variance)
    return steps * 0.5 * jnp.where(last, density, kl) / math.log(2)

  def data(self, out: Array, x: Array, tau: Array) -> Array:
    """A network's output at (x, tau) -> its estimate of the data."""
    estimate, given = self.read(split(out, self.variance == "learned")[0], x, tau)
    return self.path.convert(estimate, given, "data", x, tau)

  def guide(self, unconditional: Array, conditional: Array, scale: float) -> Array:
    """`guidance.guide` on a network's outputs; a learned variance is the conditional one's."""
    if self.variance == "none":
      return guide(unconditional, conditional, scale)
    half = conditional.shape[-1] // 2
    mixed = guide(unconditional[..., :half], conditional[..., :half], scale)
    return jnp.concatenate([mixed, conditional[..., half:]], -1)

  def field(self, network: Network, guided: Network | None = None) -> Field:
    """The field of a network (x, tau) -> out, and of the same with guidance (None = the same)."""
    return Field(self, network, network if guided is None else guided)
