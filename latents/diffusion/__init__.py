"""Paths, processes, fields, samplers, times and guidance, which flow priors and diffusion decoders share.

Time tau is 0 at the data and 1 at the noise; samplers go from 1 to 0. The contract, from the ground up:

  Path         alpha(tau), sigma(tau), their slopes, log_snr(tau): x_tau = alpha x0 + sigma eps, v = d x_tau / d tau.
               mix(x0, eps, tau); convert(out, source, target, x, tau) between "velocity", "data", "noise", "score".
               turn, log_snr_slope = -d log_snr / d tau, time(log_snr): the inverse, on the host. Linear; with alpha^2 +
               sigma^2 = 1 Betas (DDPM, LDM, zero SNR), Continuous (score SDE), Cosine (offset 0: GVP), ShiftedCosine
               (simple diffusion); Exploding: alpha = 1 (EDM). Room `paths`.
               Sampling starts from noise of deviation `scale`.
  Process      what a network predicts on a path, as what it is compared, with which weight over noise levels, and
               whether it gives a variance (then 2D channels). terms(out, x0, eps, x, tau) -> name -> (error [B,...,D],
               weight): the owner takes the mean. data_weight(tau) -> [B], that of the squared error in the data.
               field(network, guided) -> Field. The owner draws tau and eps itself, and gives the network inputs(x,
               tau), not (x, tau).
  Field        field(x, tau) is the velocity; .data, .noise, .variance the same estimate read otherwise; .path;
               .turn(on) with guidance on or off.
  sampler      (field, x, times [n+1], guided [n], keys [B]) -> x. Room `samplers`: Euler, Heun, Midpoint, AB2,
               RK4, DDIM, DPMSolver2M; with noise of their own DDPM, DDIM(eta), DPMSolver2M(stochastic),
               StochasticHeun (EDM), EulerMaruyama (SiT), Consistency.
  Density      (field, x, times, keys) -> [B] nats of x under the flow.
  grid         (steps, shift) -> [steps+1] times from 1 to 0: Even, Early (REPA), Karras (EDM), Strided (a chain's),
               Aligned (of a short chain, from its end on).
  times        (key, batch) -> [batch] times of training in [0,1]: Uniform, Stratified, LogitNormal, LogNormal, Steps;
               Resampled, by the losses that its owner has held.
  weight       (log_snr, slope) -> weight of a squared error in the data: Unit, Clipped (JiT), MinSNR, MaxSNR, P2,
               Sigmoid, EDMWeight, Likelihood. None, with `compare` of a process: 1 on that error.
"""

from latents.diffusion.density import Density
from latents.diffusion.field import Field
from latents.diffusion.grids import Aligned, Early, Even, Grid, Karras, Strided, grid
from latents.diffusion.guidance import guide, inside
from latents.diffusion.paths import Betas, Continuous, Cosine, Exploding, Linear, Path, ShiftedCosine
from latents.diffusion.posterior import posterior
from latents.diffusion.process import Process
from latents.diffusion.resampled import Resampled
from latents.diffusion.samplers import (
  AB2,
  DDIM,
  DDPM,
  RK4,
  Consistency,
  DPMSolver2M,
  Euler,
  EulerMaruyama,
  Heun,
  Midpoint,
  Sampler,
  StochasticHeun,
)
from latents.diffusion.times import (
  LogitNormal,
  LogNormal,
  Steps,
  Stratified,
  Times,
  Uniform,
  dimension_shift,
  shift,
)
from latents.diffusion.weights import P2, Clipped, EDMWeight, Likelihood, MaxSNR, MinSNR, Sigmoid, Unit, Weight

__all__ = [
  "AB2", "DDIM", "DDPM", "P2", "RK4", "Aligned", "Betas", "Clipped", "Consistency", "Continuous", "Cosine",
  "DPMSolver2M", "Density", "EDMWeight", "Early", "Euler", "EulerMaruyama", "Even", "Exploding", "Field", "Grid",
  "Heun", "Karras", "Likelihood", "Linear", "LogNormal", "LogitNormal", "MaxSNR", "Midpoint", "MinSNR", "Path",
  "Process", "Resampled", "Sampler", "ShiftedCosine", "Sigmoid", "Steps", "StochasticHeun", "Stratified", "Strided",
  "Times", "Uniform", "Unit", "Weight", "dimension_shift", "grid", "guide", "inside", "posterior", "shift",
]  # fmt: skip
