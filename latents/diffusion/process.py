"""What a network predicts along a path, and what it is compared with."""

import dataclasses
import math
from typing import Literal

import jax
import jax.numpy as jnp

from latents.diffusion.field import Field, Network, split
from latents.diffusion.guidance import guide
from latents.diffusion.paths import AnyPath, Kind, Linear, spread
from latents.diffusion.posterior import posterior
from latents.diffusion.weights import Weight
from latents.types import Array, later

SHORT = 1e-3  # vectors are taken to be no shorter, so that a network of zeros gets a gradient that is no explosion
VLB = 1e-3  # the weight of the bound beside the simple loss (iDDPM, section 3.1)


def cosine(a: Array, b: Array) -> Array:
  """[B,...,D] twice -> [B,...,1]: the cosine of the angle between them, along the channels."""

  def unit(x: Array) -> Array:
    return x * jax.lax.rsqrt(jnp.maximum(jnp.square(x).sum(-1, keepdims=True), SHORT**2))

  return (unit(a) * unit(b)).sum(-1, keepdims=True)


@dataclasses.dataclass(frozen=True)
class Process:
  """The default is flow matching: the velocity of the linear path.

  predict: what the network gives; "edm" is F of EDM's preconditioning (Karras et al. 2022, arXiv:2206.00364, table 1)
  in y = x / alpha, s = sigma / alpha, for data of the deviation data_std: data = c_skip y + c_out F(c_in y, ln(s) / 4)
  (the network is told a thousandth of ln(s) / 4: backbones embed 1000 t); "rotation" is alpha eps - sigma x0, the
  velocity of paths with alpha^2 + sigma^2 = 1 by their angle, of one size at every time ("v" of Salimans & Ho 2022,
  arXiv:2202.00512, section 4): the velocity over `Path.turn`. compare: as what it is compared, None = as predicted.
  weight: over noise levels; None = 1 on the error that is compared. variance: "learned" = the network gives 2D
  channels, of which the second half is where the log variance of a reverse step lies between its two bounds. error:
  squared, or absolute (WaveGrad, arXiv:2009.00713). tell: the network is told tau, or alpha(tau) in its place.
  direction: weight of 1 - cosine, over the channels, of what is compared and its target (LightningDiT, Yao & Wang 2025,
  arXiv:2501.01423, section 4; 1 there). least: of "edm", the noise s up to which the estimate is y itself:
  c_skip(least) = 1, c_out(least) = 0 (consistency models, arXiv:2303.01469, appendix C); 0 is EDM's own.
  """

  path: AnyPath = Linear()
  predict: Literal["velocity", "data", "noise", "edm", "rotation"] = "velocity"
  compare: Literal["velocity", "data", "noise"] | None = None
  weight: Weight | None = None
  variance: Literal["none", "learned"] = "none"
  data_std: float = later(0.5)
  error: Literal["l2", "l1"] = later("l2")
  tell: Literal["time", "level"] = later("time")
  direction: float = later(0.0)
  least: float = later(0.0)

  def width(self, channels: int) -> int:
    """Channels that a network must give for data of `channels`."""
    return channels * (2 if self.variance == "learned" else 1)

  def inputs(self, x: Array, tau: Array) -> tuple[Array, Array]:
    """(x [B,...], tau [B]) -> the same as the network sees them."""
    if self.predict != "edm":
      return x, tau if self.tell == "time" else self.path.alpha(tau)
    s = jnp.maximum(self.path.sigma(tau), self.path.floor) / jnp.maximum(self.path.alpha(tau), self.path.floor)
    return x * spread(1 / self._size(tau), x), jnp.log(s) / 4000

  def read(self, estimate: Array, x: Array, tau: Array) -> tuple[Array, Kind]:
    """What a network gives at (x, tau) -> the estimate, and as what: F as data, a rotation as velocity, all else as it
    is."""
    if self.predict == "rotation":
      return spread(self.path.turn(tau), x) * estimate, "velocity"
    if self.predict != "edm":
      return estimate, self.predict
    alpha = self.path.alpha(tau)
    skip = self.data_std**2 * alpha / (self._beyond(tau) ** 2 + (alpha * self.data_std) ** 2)  # c_skip / alpha
    return spread(skip, x) * x + spread(self._c_out(tau), x) * estimate, "data"

  def _size(self, tau: Array) -> Array:
    """The deviation of x_tau, alpha sqrt(s^2 + data_std^2)."""
    return jnp.sqrt(self.path.sigma(tau) ** 2 + (self.path.alpha(tau) * self.data_std) ** 2)

  def _c_out(self, tau: Array) -> Array:
    return self._beyond(tau) * self.data_std / self._size(tau)

  def _beyond(self, tau: Array) -> Array:
    """sigma, or by how much it is more than the least."""
    sigma = self.path.sigma(tau)
    return jnp.maximum(sigma - self.least * self.path.alpha(tau), 0.0) if self.least else sigma

  def data_weight(self, tau: Array) -> Array:
    """[B] -> [B]: the weight of the squared error in the data, 1 without `weight`; finite at both ends."""
    if self.weight is None:
      return jnp.ones_like(tau)
    most = -2 * math.log(self.path.floor)
    return self.weight(jnp.clip(self.path.log_snr(tau), -most, most), self.path.log_snr_slope(tau))

  def terms(self, out: Array, x0: Array, eps: Array, x: Array, tau: Array) -> dict[str, tuple[Array, float]]:
    """name -> (error of each element [B,...,D], weight of its mean).

    "flow": the weighed squared error. "direction", where it is asked for: [B,...,1]. With a learned variance also
    "vlb", the bound in bits, T times its term of one random step, with iDDPM's weight; its gradient reaches the
    variance alone (arXiv:2102.09672, section 3.1).
    out: the network's at (x, tau), x = path.mix(x0, eps, tau), tau [B].
    """
    estimate, share = split(out, self.variance == "learned")
    estimate, given = self.read(estimate, x, tau)
    kind: Kind = self.compare or given
    target = {"data": x0, "noise": eps}[kind] if kind != "velocity" else self.path.velocity(x0, eps, tau)
    made = self.path.convert(estimate, given, kind, x, tau)
    error = jnp.square(made - target) if self.error == "l2" else jnp.abs(made - target)
    aside = {"direction": (1 - cosine(made, target), self.direction)} if self.direction else {}
    if self.weight is not None:
      error = error * spread(self.data_weight(tau) / self.path.unit(kind, tau) ** 2, x)
    elif self.predict == "edm" and self.compare is None:  # as F: the error in the data over c_out
      error = error / spread(jnp.maximum(self._c_out(tau), self.path.floor) ** 2, x)
    elif self.predict == "rotation" and self.compare is None:
      error = error / spread(self.path.turn(tau) ** 2, x)
    if share is None:
      return {"flow": (error, 1.0), **aside}
    data = jax.lax.stop_gradient(self.path.convert(estimate, given, "data", x, tau))
    return {"flow": (error, 1.0), **aside, "vlb": (self._bound(data, share, x0, tau), VLB)}

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

  def guide(self, unconditional: Array, conditional: Array, scale: float, channels: int | None = None) -> Array:
    """`guidance.guide` on a network's outputs, the first `channels` of the data (None = all); the others, and a learned
    variance, are the conditional one's."""
    width = conditional.shape[-1] // (2 if self.variance == "learned" else 1)
    first = width if channels is None else channels
    if first == conditional.shape[-1]:
      return guide(unconditional, conditional, scale)
    mixed = guide(unconditional[..., :first], conditional[..., :first], scale)
    return jnp.concatenate([mixed, conditional[..., first:]], -1)

  def field(self, network: Network, guided: Network | None = None) -> Field:
    """The field of a network (x, tau) -> out, and of the same with guidance (None = the same)."""
    return Field(self, network, network if guided is None else guided)
