"""Paths, times, samplers and guidance, which flow priors and diffusion decoders share.

Time tau is 0 at the data and 1 at the noise; x_tau = (1 - tau) x0 + tau eps; v = eps - x0; samplers go from
1 to 0. Sampler contract: a frozen dataclass with `steps` and `__call__(velocity, x, times) -> x`; times: see `grid`.
Time distribution contract: a frozen dataclass with `__call__(key, batch) -> [batch]` in [0,1].
"""

from latents.diffusion.guidance import guide, segments, solve
from latents.diffusion.samplers import Euler, Heun, grid
from latents.diffusion.times import LogitNormal, Uniform, dimension_shift, shift

__all__ = [
  "Euler", "Heun", "LogitNormal", "Uniform", "dimension_shift", "grid", "guide", "segments", "shift", "solve",
]  # fmt: skip
