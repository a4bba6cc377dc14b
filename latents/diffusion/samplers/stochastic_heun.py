"""EDM's stochastic sampler: Karras et al. 2022, arXiv:2206.00364, algorithm 2."""

import dataclasses

import jax.numpy as jnp
import numpy as np

from latents.diffusion.field import Field
from latents.diffusion.samplers.base import check_keys, check_steps, fresh_noise, numbers, walk
from latents.types import Array


@dataclasses.dataclass(frozen=True)
class StochasticHeun:
  """Before each of Heun's steps noise is added, from the level s = sigma / alpha to s (1 + gamma), on any path.

  gamma = min(churn / n, sqrt(2) - 1) where low <= s <= high, else 0 (S_churn, S_tmin, S_tmax; n steps); the noise that
  is added is scaled by `noise` (S_noise). It never rises above the end of the path. The last step, to tau = 0, is
  Euler's. With `grids.Karras` and `Exploding` this is the paper's; churn = 0 is `Heun`.
  """

  steps: int = 18
  churn: float = 40.0
  low: float = 0.05
  high: float = 50.0
  noise: float = 1.003

  def __post_init__(self) -> None:
    check_steps(self.steps)

  def __call__(
    self, field: Field, x: Array, times: np.ndarray, *, guided: np.ndarray | None = None, keys: Array = None
  ) -> Array:
    """See the room's contract. UserError without keys."""
    keys, now, then = check_keys(keys, "StochasticHeun"), times[:-1], times[1:]
    raised, gain, deviation = self._churned(field, now)
    tables = numbers(x, raised, then - raised, gain, deviation)

    def churned(x: Array, given: tuple[Array, ...]) -> tuple[Array, Array, Array]:
      number, now, h, gain, deviation = given
      return gain * x + deviation * fresh_noise(keys, number, x), now, h

    def step(field: Field, x: Array, given: tuple[Array, ...]) -> Array:
      x, now, h = churned(x, given)
      here = field(x, now)
      return x + h * (here + field(x + h * here, now + h)) / 2

    def last(field: Field, x: Array, given: tuple[Array, ...]) -> Array:
      x, now, h = churned(x, given)
      return x + h * field(x, now)

    inputs, cut = (jnp.arange(len(now)), *tables), len(now) - (times[-1] == 0)
    for part, method in ((slice(None, cut), step), (slice(cut, None), last)):
      x = walk(method, field, x, tuple(v[part] for v in inputs), None if guided is None else guided[part])
    return x

  def _churned(self, field: Field, now: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Times after the noise, and how x comes there: times a gain, plus noise of a deviation."""
    path = field.path
    with np.errstate(divide="ignore"):
      level = path.log_snr(now)
    inside = (level <= -2 * np.log(self.low)) if self.low > 0 else np.isfinite(level)
    inside &= (level >= -2 * np.log(self.high)) & np.isfinite(level)
    gamma = np.where(inside, min(self.churn / len(now), np.sqrt(2) - 1), 0.0)
    raised = np.where(gamma > 0, path.time(level - 2 * np.log1p(gamma)), now)
    gain = np.where(gamma > 0, path.alpha(raised) / np.where(gamma > 0, path.alpha(now), 1), 1.0)
    added = np.maximum(path.sigma(raised) ** 2 - (gain * path.sigma(now)) ** 2, 0)
    return raised, gain, self.noise * np.sqrt(added)
