"""Samplers, one method a file: noise at times[0] -> data at times[-1].

Contract: a frozen dataclass with `steps`, and
  __call__(field, x [B,...], times [n+1] falling, *, guided [n] bool | None, keys [B] | None) -> x
times are the whole grid, float64 of numpy, and `guided` says at which steps guidance is on (None = nowhere): both are
known when the program is traced. A sampler carries its own state along all steps (`base.walk`), in a program with one
copy of the network for each run of steps that are guided, or not. The noise of sample i at step k is drawn with
fold_in(keys[i], k), so it depends on neither the batch nor the interval; without keys a UserError.
"""

from latents.diffusion.samplers.consistency import Consistency
from latents.diffusion.samplers.ddpm import DDPM
from latents.diffusion.samplers.dpm_solver import DPMSolver2M
from latents.diffusion.samplers.euler import Euler
from latents.diffusion.samplers.heun import Heun

Sampler = Euler | Heun | DDPM | DPMSolver2M | Consistency

__all__ = ["DDPM", "Consistency", "DPMSolver2M", "Euler", "Heun", "Sampler"]
