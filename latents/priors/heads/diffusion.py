"""Real-valued tokens by a small diffusion model of each. MAR: Li et al. 2024, arXiv:2406.11838, section 3.2 and 4.2."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np

from latents.backbones.mlp import ResidualMLP
from latents.diffusion.grids import Grid, Strided
from latents.diffusion.paths import Cosine, Exploding
from latents.diffusion.process import Process
from latents.diffusion.samplers import DDPM, Sampler
from latents.diffusion.times import Steps, Times
from latents.errors import UserError
from latents.priors.heads.base import Head
from latents.types import Array, aside

LAST = 0.999  # of the times: at 1 the cosine path holds no data, and the code's chain stops short of it too


class DiffusionHead(Head):
  """Elements: z [B,*s,dim]; a residual MLP with adaLN denoises each on its own, told what the network gave of it.

  out: `features`, as many numbers as the network gives. depth, width: of the MLP (`ResidualMLP`; MAR-B 6 x 1024, L 8 x
  1280, H 12 x 1536). process, times: as of a `FlowPrior`, but times end at 0.999; the default is the paper's, noise on
  the cosine path and the variance of each step. draws: noise levels an element in training (the code's 4).
  nll is the process's loss, no bound. Sampling: sampler and grid; guidance on what the MLP gives; temperature
  multiplies the noise of DDPM's steps, not that which it begins with (as in the code). UserError for a path
  without end (`Exploding`), and for a temperature with a sampler that adds no noise.
  """

  features: int = 0
  depth: int = 3
  width: int = 1024
  draws: int = 4
  process: Process = Process(Cosine(), "noise", variance="learned")
  times: Times = Steps()
  sampler: Sampler = aside(DDPM(100, "learned"))
  grid: Grid = aside(Strided())
  dtype: str = "float32"

  likelihood = False

  @property
  def out(self) -> int:
    """See the class."""
    return self.features

  def setup(self) -> None:
    """Makes the MLP."""
    if isinstance(self.process.path, Exploding):
      raise UserError("a diffusion head walks paths that end in noise of deviation 1, not Exploding")
    if self.draws < 1:
      raise UserError(f"a diffusion head looks at 1 noise level an element at least, not {self.draws}")
    self.net = ResidualMLP(
      self.depth, self.width, out=self.process.width(self.dim), dtype=self.dtype, told=self.features
    )

  def nll(self, given: Array, x: Array) -> Array:
    """The loss of each element, mean over its numbers and `draws` noise levels; random times and noise."""
    wide = lambda a: jnp.repeat(a.reshape(-1, a.shape[-1]), self.draws, 0)  # noqa: E731
    told, data = wide(given), wide(x)
    eps = jax.random.normal(self.make_rng("prior"), data.shape)
    tau = jnp.minimum(self.times(self.make_rng("prior"), len(data)), LAST)
    noisy = self.process.path.mix(data, eps, tau)
    out = self.net(*self.process.inputs(noisy, tau), {"told": told})
    found = self.process.terms(out, data, eps, noisy, tau).values()
    total = sum(weight * error.mean(-1) for error, weight in found)
    return jnp.reshape(total, (*x.shape[:-1], self.draws)).mean(-1)

  def draw(self, keys: Array, given: Array, other: Array | None, guidance: float, temperature: float) -> Array:
    """See the class."""
    net, variables = self.net.unbind()

    def network(x: Array, tau: Array) -> Array:
      seen, time = self.process.inputs(x, jnp.broadcast_to(tau, x.shape[:1]))
      own = net.apply(variables, seen, time, {"told": given})
      if other is None:
        return own  # pyright: ignore
      return self.process.guide(net.apply(variables, seen, time, {"told": other}), own, guidance)  # pyright: ignore

    sampler = self.sampler
    if temperature != 1.0:
      if not isinstance(sampler, DDPM):
        raise UserError(f"temperature {temperature} multiplies the noise of DDPM's steps: {sampler} has none")
      sampler = dataclasses.replace(sampler, temperature=temperature)
    split = jax.vmap(jax.random.split)(keys)
    start = jax.vmap(lambda key: jax.random.normal(key, (self.dim,)))(split[:, 0])
    times = np.minimum(self.grid(sampler.steps, 1.0), LAST)
    return sampler(self.process.field(network), start, times, keys=split[:, 1])
