"""How the power of a latent falls with frequency: what a diffusion model meets from coarse to fine."""

import dataclasses

import jax.numpy as jnp
import numpy as np

from latents.evaluate.latent.base import Held, LatentMetric, Layout
from latents.evaluate.sums import Tree, add, sum_kept, total, zeros
from latents.types import Latent


@dataclasses.dataclass(frozen=True)
class Spectrum(LatentMetric):
  """Slope of log power over log frequency of z on its grid, and the share of the power that is fine detail.

  {"spectrum_slope": s, "fine_power": share}: power ~ f^s by least squares over all frequencies 0 < f <= 1/2 cycles a
  place, f the radius over all latent axes; 0 for white noise, about -2 for pictures. Latents with more fine detail than
  the signal are harder to model (Skorokhodov et al. 2025, arXiv:2502.14831, find it by block DCT). fine_power: the
  share above `cutoff` of what lies above f = 0. The power is the mean over examples and channels.
  """

  cutoff: float = 0.25

  def fits(self, layout: Layout) -> bool:
    """Of latents with an axis of at least four places: two frequencies."""
    return layout.latent.z is not None and max(layout.latent.z.shape[:-1], default=1) >= 4

  def init(self, layout: Layout) -> Tree:
    """Power by frequency [*s]."""
    return {"power": zeros(*layout.latent.z.shape[:-1]), "count": zeros()}

  def update(self, acc: Tree, latent: Latent, held: Held) -> Tree:
    """See the class."""
    z = latent.z.astype(jnp.float32)
    found = jnp.fft.fftn(z, axes=tuple(range(1, z.ndim - 1)))
    power = (jnp.real(found) ** 2 + jnp.imag(found) ** 2).mean(-1)
    count = held.mask.astype(jnp.float32).sum()
    return {"power": add(acc["power"], sum_kept(power, held.mask)), "count": add(acc["count"], count)}

  def result(self, acc: Tree, layout: Layout) -> dict[str, float | list[float]]:
    """Frequencies without power (of constant latents) have no logarithm and are left out of the slope."""
    power = total(acc["power"])
    axes = [np.fft.fftfreq(n) for n in power.shape]
    radius = np.sqrt(sum(f**2 for f in np.meshgrid(*axes, indexing="ij")))
    above = power[radius > 0].sum()
    if not total(acc["count"]) or not above:
      return {"spectrum_slope": float("nan"), "fine_power": float("nan")}
    used = (radius > 0) & (radius <= 0.5) & (power > 0)
    x, y = np.log(radius[used]), np.log(power[used])
    x = x - x.mean()
    slope = float(x @ y / (x @ x)) if x.any() else float("nan")
    return {"spectrum_slope": slope, "fine_power": float(power[radius > self.cutoff].sum() / above)}
