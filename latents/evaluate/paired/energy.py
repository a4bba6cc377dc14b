"""How much of the fine detail a reconstruction keeps."""

import dataclasses

import jax.numpy as jnp

from latents.evaluate.paired.base import Metric
from latents.evaluate.sums import Tree, add, sum_kept, total, zeros
from latents.types import Array


@dataclasses.dataclass(frozen=True)
class Energy(Metric):
  """Spectral energy of x_hat over that of x above `cutoff` cycles a sample; 1 = as much detail as in x.

  cutoff: 0.25 is half the Nyquist frequency; in two dimensions the radius sqrt(fy^2 + fx^2) counts.
  The ratio is that of the sums over the whole set, so flat samples do not blow it up. It says how much
  detail there is, not whether it is the right one: white noise raises it. Video: frame by frame.
  """

  cutoff: float = 0.25

  def init(self) -> Tree:
    """Two sums of energy."""
    return {"x": zeros(), "x_hat": zeros()}

  def update(self, acc: Tree, x: Array, x_hat: Array, mask: Array, *, aux: Tree = None) -> Tree:
    """See `Metric`."""
    parts = {"x": x, "x_hat": x_hat}
    return {k: add(acc[k], sum_kept(self.above(v.astype(jnp.float32)), mask)) for k, v in parts.items()}

  def result(self, acc: Tree) -> dict[str, float]:
    """{"high_frequency_kept": ratio}; nan where x has no energy above the cutoff."""
    x, x_hat = total(acc["x"]), total(acc["x_hat"])
    return {"high_frequency_kept": float(x_hat / x) if x else float("nan")}

  def above(self, x: Array) -> Array:
    """[B,*S,C] -> [B]: mean square of the part above the cutoff (Parseval)."""
    axes = (1,) if x.ndim == 3 else (x.ndim - 3, x.ndim - 2)
    square = sum(
      jnp.fft.fftfreq(x.shape[axis]).reshape([-1 if i == axis else 1 for i in range(x.ndim)]) ** 2 for axis in axes
    )
    spectrum = jnp.fft.fftn(x, axes=axes)
    power = jnp.where(square > self.cutoff**2, jnp.real(spectrum) ** 2 + jnp.imag(spectrum) ** 2, 0.0)
    count = 1
    for axis in axes:
      count *= x.shape[axis]
    return power.reshape(len(x), -1).mean(1) / count
