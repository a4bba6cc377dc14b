"""Members of `latents/diffusion`."""

from latents.diffusion import DDPM, Betas, Consistency, Cosine, DPMSolver2M, Euler, Heun, Linear

# -- paths of diffusion: (name, make)
PATHS = [
  ("linear", Linear),
  ("betas", Betas),
  ("betas-root", lambda: Betas(0.0015, 0.0195, rise="root")),
  ("cosine", Cosine),
]


# -- samplers: (name, make), of a few steps
SAMPLERS = [
  ("euler", lambda: Euler(6)),
  ("heun", lambda: Heun(6)),
  ("ddpm", lambda: DDPM(6)),
  ("ddpm-large", lambda: DDPM(6, "large")),
  ("dpm-solver-2m", lambda: DPMSolver2M(6)),
  ("consistency", lambda: Consistency(6)),
]
