"""What a sampler walks along: a network's estimate, read as whatever the solver needs."""

import dataclasses
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import jax.numpy as jnp

from latents.diffusion.paths import Kind, Path
from latents.types import Array

if TYPE_CHECKING:
  from latents.diffusion.process import Process

Network = Callable[[Array, Array], Array]  # (x [B,...,D], tau []) -> [B,...,D], or [B,...,2D] with a learned variance


def split(out: Array, learned: bool) -> tuple[Array, Any]:
  """A network's output -> (estimate, share of the log variance in about [0,1], or None where none is learned).

  The second half of 2D channels is the share, from -1 (small) to 1 (large) (iDDPM, arXiv:2102.09672, eq. 15).
  """
  if not learned:
    return out, None
  estimate, raw = jnp.split(out, 2, -1)
  return estimate, (raw + 1) / 2


@dataclasses.dataclass(frozen=True)
class Field:
  """velocity = field(x [B,...], tau []); `data` and `noise` are the same estimate read otherwise.

  plain, guided: the network without and with guidance; `turn` gives the field that uses one of them.
  """

  process: "Process"
  plain: Network
  guided: Network
  on: bool = False

  @property
  def path(self) -> Path:
    """The path that is walked."""
    return self.process.path

  @property
  def learned(self) -> bool:
    """Whether the network gives a variance."""
    return self.process.variance == "learned"

  def turn(self, on: bool) -> "Field":
    """The field with guidance on or off."""
    return dataclasses.replace(self, on=on)

  def read(self, kind: Kind, x: Array, tau: Array) -> tuple[Array, Any]:
    """(the estimate as `kind`, share of the log variance or None): one evaluation of the network."""
    estimate, share = split((self.guided if self.on else self.plain)(x, tau), self.learned)
    estimate, given = self.process.read(estimate, x, tau)
    return self.path.convert(estimate, given, kind, x, tau), share

  def __call__(self, x: Array, tau: Array) -> Array:
    """The velocity dx / dtau of the probability flow at x."""
    return self.read("velocity", x, tau)[0]

  def data(self, x: Array, tau: Array) -> Array:
    """E[x0 | x_tau = x]."""
    return self.read("data", x, tau)[0]

  def noise(self, x: Array, tau: Array) -> Array:
    """E[eps | x_tau = x]."""
    return self.read("noise", x, tau)[0]

  def variance(self, x: Array, tau: Array) -> Array:
    """The share of the log variance that is learned, or None."""
    return self.read("data", x, tau)[1]
