"""How much detail a reconstruction keeps, above a frequency and by octaves."""

import dataclasses
import math

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
    square, power = spectrum(x)
    return jnp.where(square > self.cutoff**2, power, 0.0).reshape(len(x), -1).mean(1)


@dataclasses.dataclass(frozen=True)
class Bands(Metric):
  """Spectral energy of x_hat over that of x in octaves: {"band_0.0625": ratio, "band_0.125", "band_0.25", "band_top"}.

  A band goes from the edge before (0) to its own, in cycles a sample, the top one to the end; see `Energy` for the
  rest. The first holds the picture's mean. edges: rising. nan where x has nothing in a band.
  """

  edges: tuple[float, ...] = (0.0625, 0.125, 0.25)

  def init(self) -> Tree:
    """Two sums of energy a band."""
    return {"x": zeros(len(self.edges) + 1), "x_hat": zeros(len(self.edges) + 1)}

  def update(self, acc: Tree, x: Array, x_hat: Array, mask: Array, *, aux: Tree = None) -> Tree:
    """See `Metric`."""
    parts = {"x": x, "x_hat": x_hat}
    return {k: add(acc[k], sum_kept(self.each(v.astype(jnp.float32)), mask)) for k, v in parts.items()}

  def result(self, acc: Tree) -> dict[str, float]:
    """See the class."""
    names = [*(f"band_{edge:g}" for edge in self.edges), "band_top"]
    pairs = zip(names, total(acc["x"]), total(acc["x_hat"]), strict=True)
    return {name: float(kept / there) if there else float("nan") for name, there, kept in pairs}

  def each(self, x: Array) -> Array:
    """[B,*S,C] -> [B,bands]: mean square of the part in each band."""
    square, power = spectrum(x)
    number = sum(square > edge**2 for edge in self.edges)
    parts = [jnp.where(number == i, power, 0.0).reshape(len(x), -1).mean(1) for i in range(len(self.edges) + 1)]
    return jnp.stack(parts, 1)


def spectrum(x: Array) -> tuple[Array, Array]:
  """[B,*S,C] -> (squared frequency of each number of the spectrum, in cycles a sample; its power [B,*S,C], of the same
  mean as x^2). Video frame by frame."""
  axes = (1,) if x.ndim == 3 else (x.ndim - 3, x.ndim - 2)
  square = sum(
    jnp.fft.fftfreq(x.shape[axis]).reshape([-1 if i == axis else 1 for i in range(x.ndim)]) ** 2 for axis in axes
  )
  found = jnp.fft.fftn(x, axes=axes)
  return square, (jnp.real(found) ** 2 + jnp.imag(found) ** 2) / math.prod(x.shape[axis] for axis in axes)
