"""Paths, processes, fields, samplers, times and guidance, which flow priors and diffusion decoders share.

Time tau is 0 at the data and 1 at the noise; samplers go from 1 to 0. The contract, from the ground up:

  Path         alpha(tau), sigma(tau), their slopes, log_snr(tau): x_tau = alpha x0 + sigma eps, v = d x_tau / d tau.
               mix(x0, eps, tau); convert(out, source, target, x, tau) between "velocity", "data", "noise", "score".
               Linear; Betas (DDPM, LDM), Cosine: alpha^2 + sigma^2 = 1; Exploding: alpha = 1. Room `paths`.
               Sampling starts from noise of deviation `scale`.
  Process      what a network predicts on a path, as what it is compared, with which weight over noise levels, and
               whether it gives a variance (then 2D channels). terms(out, x0, eps, x, tau) -> name -> (error [B,...,D],
               weight): the owner takes the mean. field(network, guided) -> Field. The owner draws tau and eps itself,
               and gives the network inputs(x, tau), not (x, tau).
  Field        field(x, tau) is the velocity; .data, .noise, .variance the same estimate read otherwise; .path;
               .turn(on) with guidance on or off.
  sampler      (field, x, times [n+1], guided [n], keys [B]) -> x. Room `samplers`: Euler, Heun, DPMSolver2M; with
               noise of their own DDPM, Consistency.
  grid         (steps, shift) -> [steps+1] times from 1 (Aligned: from its chain's end) to 0: Even, Strided,
               Aligned.
  times        (key, batch) -> [batch] times of training in [0,1]: Uniform, LogitNormal, Steps.
  weight       (log_snr) -> weight of a squared error in the data: MinSNR.
"""

from latents.diffusion.field import Field
from latents.diffusion.grids import Aligned, Even, Strided, grid
from latents.diffusion.guidance import guide, inside
from latents.diffusion.paths import Betas, Cosine, Exploding, Linear, Path
from latents.diffusion.posterior import posterior
from latents.diffusion.process import Process
from latents.diffusion.samplers import DDPM, Consistency, DPMSolver2M, Euler, Heun, Sampler
from latents.diffusion.times import LogitNormal, Steps, Uniform, dimension_shift, shift
from latents.diffusion.weights import MinSNR

__all__ = [
  "DDPM", "Aligned", "Betas", "Consistency", "Cosine", "DPMSolver2M", "Euler", "Even", "Exploding", "Field", "Heun",
  "Linear", "LogitNormal", "MinSNR", "Path", "Process", "Sampler", "Steps", "Strided", "Uniform", "dimension_shift",
  "grid", "guide", "inside", "posterior", "shift",
]  # fmt: skip
