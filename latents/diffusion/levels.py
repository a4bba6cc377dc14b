"""The error of a denoiser at fixed noise levels, by which priors on any path and of any parametrisation compare."""

import numpy as np

from latents.diffusion.paths import Path

LEVELS = (-4, -2, 0, 2, 4)  # log-SNR, from noise to detail: nearly all that latents of deviation 1 have to learn


def time_at(path: Path, log_snr: float, halvings: int = 60) -> float:
  """The time tau in (0,1) at which a path has this log-SNR, by bisection in float64; an end where it is never there."""
  low, high = 0.0, 1.0
  with np.errstate(divide="ignore"):
    for _ in range(halvings):
      middle = (low + high) / 2
      low, high = (middle, high) if path.log_snr(np.float64(middle)) > log_snr else (low, middle)
  return (low + high) / 2
