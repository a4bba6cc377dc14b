"""The reverse step of the noising chain, given the data: q(x_s | x_t, x0) for s < t on any path.

DDPM (Ho et al. 2020, arXiv:2006.11239, eqs. 6, 7) for all paths (VDM, Kingma et al. 2021, arXiv:2107.00630, eq. 31).
"""

from typing import NamedTuple

import numpy as np

from latents.diffusion.paths import Path
from latents.diffusion.paths.base import library
from latents.types import Array


class Posterior(NamedTuple):
  """q = N(of_x x_t + of_data x0, small): all of the shape of the times.

  large: the variance of x_t given x_s, DDPM's beta; the two are those of the reverse step for data that are one point
  and for data N(0, 1) (Ho et al. 2020, section 3.2).
  """

  of_x: Array
  of_data: Array
  small: Array
  large: Array


def posterior(path: Path, now: Array, then: Array) -> Posterior:
  """now, then: times [n] or [B], then < now; then = 0 gives (0, 1, 0, sigma^2)."""
  xp = library(now)
  with np.errstate(divide="ignore"):
    shift = path.log_snr(now) - path.log_snr(then)
  share = -xp.expm1(shift)  # sigma_(t|s)^2 / sigma_t^2 = 1 - SNR_t / SNR_s
  ratio = (path.sigma(then) / path.sigma(now)) ** 2
  large = path.sigma(now) ** 2 * share
  return Posterior(path.alpha(now) / path.alpha(then) * ratio, path.alpha(then) * share, large * ratio, large)
