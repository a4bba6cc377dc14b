"""Samplers, one method a file: noise at times[0] -> data at times[-1].

Contract: a frozen dataclass with `steps`, and
  __call__(field, x [B,...], times [n+1] falling, *, guided [n] bool | None, keys [B] | None) -> x
times are the whole grid, float64 of numpy, and `guided` says at which steps guidance is on (None = nowhere): both are
known when the program is traced. A sampler carries its own state along all steps (`base.walk`), in a program with one
copy of the network for each run of steps that are guided, or not. The noise of sample i at step k is drawn with
fold_in(keys[i], k), so it depends on neither the batch nor the interval; without keys a UserError. What a field cannot
tell (a variance that is not learned, the velocity at the data) is a UserError too.
"""

from latents.diffusion.samplers.adams_bashforth import AB2
from latents.diffusion.samplers.consistency import Consistency
from latents.diffusion.samplers.ddim import DDIM
from latents.diffusion.samplers.ddpm import DDPM
from latents.diffusion.samplers.dpm_solver import DPMSolver2M
from latents.diffusion.samplers.euler import Euler
from latents.diffusion.samplers.euler_maruyama import EulerMaruyama
from latents.diffusion.samplers.heun import Heun
from latents.diffusion.samplers.midpoint import Midpoint
from latents.diffusion.samplers.runge_kutta import RK4
from latents.diffusion.samplers.stochastic_heun import StochasticHeun

Sampler = Euler | Heun | Midpoint | AB2 | RK4 | DDIM | DDPM | DPMSolver2M | StochasticHeun | EulerMaruyama | Consistency

__all__ = [
  "AB2", "DDIM", "DDPM", "RK4", "Consistency", "DPMSolver2M", "Euler", "EulerMaruyama", "Heun", "Midpoint", "Sampler",
  "StochasticHeun",
]  # fmt: skip
