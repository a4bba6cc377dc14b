"""Members of `latents/diffusion`."""

from latents.diffusion import (
  AB2,
  DDIM,
  DDPM,
  P2,
  RK4,
  Aligned,
  Betas,
  Clipped,
  Consistency,
  Continuous,
  Cosine,
  DPMSolver2M,
  Early,
  EDMWeight,
  Euler,
  EulerMaruyama,
  Even,
  Exploding,
  Heun,
  Karras,
  Likelihood,
  Linear,
  LogitNormal,
  LogNormal,
  MaxSNR,
  Midpoint,
  MinSNR,
  Resampled,
  ShiftedCosine,
  Sigmoid,
  Steps,
  StochasticHeun,
  Stratified,
  Strided,
  Uniform,
  Unit,
)

# -- paths of diffusion: (name, make)
PATHS = [
  ("linear", Linear),
  ("linear-noise", lambda: Linear(0.25)),
  ("betas", Betas),
  ("betas-root", lambda: Betas(0.0015, 0.0195, rise="root")),
  ("betas-zero-snr", lambda: Betas(0.00085, 0.012, rise="root", zero_snr=True)),
  ("continuous", Continuous),
  ("cosine", Cosine),
  ("gvp", lambda: Cosine(0.0)),
  ("shifted-cosine", lambda: ShiftedCosine(256)),
  ("shifted-cosine-fine", lambda: ShiftedCosine(512, 32.0, 512.0)),
  ("exploding", lambda: Exploding(80.0)),
]

# -- weights, times and grids: makers
WEIGHTS = [
  Unit, lambda: Unit("data"), lambda: Unit("rotation"), lambda: Unit("straight"), lambda: MinSNR(2.0), MaxSNR, P2,
  lambda: P2(0.5, 2.0), Sigmoid, lambda: Sigmoid(-3.0), EDMWeight, Likelihood, Clipped, lambda: Clipped(0.1, 0.25),
]  # fmt: skip
TIMES = [Uniform, Stratified, LogitNormal, LogNormal, Steps, Resampled]
GRIDS = [Even, Early, Karras, Strided, Aligned]


# -- samplers: (name, make), of a few steps
SAMPLERS = [
  ("euler", lambda: Euler(6)),
  ("heun", lambda: Heun(6)),
  ("ddpm", lambda: DDPM(6)),
  ("ddpm-large", lambda: DDPM(6, "large")),
  ("dpm-solver-2m", lambda: DPMSolver2M(6)),
  ("dpm-solver-2m-sde", lambda: DPMSolver2M(6, stochastic=True)),
  ("midpoint", lambda: Midpoint(6)),
  ("ab2", lambda: AB2(6)),
  ("rk4", lambda: RK4(6)),
  ("ddim", lambda: DDIM(6)),
  ("ddim-half", lambda: DDIM(6, 0.5)),
  ("stochastic-heun", lambda: StochasticHeun(6)),
  ("euler-maruyama", lambda: EulerMaruyama(6)),
  ("euler-maruyama-constant", lambda: EulerMaruyama(6, "constant", 0.3)),
  ("consistency", lambda: Consistency(6)),
]
