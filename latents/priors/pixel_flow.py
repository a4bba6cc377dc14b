"""One flow through all resolutions: PixelFlow (Chen et al. 2025, arXiv:2504.07963), for signals of any axes."""

import itertools
import math

import flax.linen as nn
import jax
import jax.numpy as jnp

from latents.diffusion.grids import grid
from latents.diffusion.guidance import guide
from latents.diffusion.process import Process
from latents.diffusion.samplers import Euler, Sampler
from latents.diffusion.times import shift
from latents.errors import UserError
from latents.nn.conv import halved, nearest
from latents.nn.streams import sample_keys
from latents.priors.base import Prior, check_guidance, doubled, drop, rows, without
from latents.types import Array, Cond, Latent, Terms, aside


def spans(stages: int, axes: int) -> list[tuple[float, float, float]]:
  """Of each stage, coarse to fine: (noise at its nominal begin, noise it really begins with, noise at its end).

  Nominal times are even: 1 - s / stages. A jump to twice the resolution adds noise, which is `times.shift` by the root
  of the number of cells that one becomes: with 4 cells tau -> 2 tau / (1 + tau).
  """
  edges = [1 - s / stages for s in range(stages + 1)]
  root = 2 ** (axes / 2)
  return [(a, shift(a, root) if s else 1.0, b) for s, (a, b) in enumerate(itertools.pairwise(edges))]


def jump(x: Array, tau: float, noise: Array) -> Array:
  """x [B,*s,D] = (1 - tau) x0 + tau eps -> [B,*2s,D] = (1 - t) nearest(x0) + t eps', t = shift(tau, sqrt(K)), eps' of
  identity covariance, from noise ~ N(0,1) of that shape.

  K = 2^axes cells come from one: a nearest(x) + b n, a = 1 / (1 - tau + tau sqrt(K)), b = a tau sqrt(K - 1), where n
  has variance 1 and covariance -1 / (K - 1) within a block: noise without its mean there, so that halved(result) = a x.
  """
  cells = 2 ** (x.ndim - 2)
  a = 1 / (1 - tau + tau * math.sqrt(cells))
  n = (noise - nearest(halved(noise))) * math.sqrt(cells / (cells - 1))
  return a * nearest(x) + a * tau * math.sqrt(cells - 1) * n


class PixelFlow(Prior):
  """Reads latent.z [B,*s,D]. Stage s of `stages` flows at 1 / 2^(stages - 1 - s) of the resolution, from a coarser
  signal, doubled and noisy, to a finer and less noisy one; the last ends at the data. One network for all.

  At share u in [0,1] of what a stage has to go, x = u begin + (1 - u) end, with
    begin = (1 - t0) nearest(halved(x0)) + t0 eps (eps alone in the first stage), end = (1 - t1) x0 + t1 eps,
  x0 the data's means at that resolution, one eps in both, and t0, t1 of `spans`; the network gives d x / d u = begin -
  end. It is told two times: the nominal noise, and 1 - 2^-s of the stage ("resolution embedding"); so `backbone` takes
  t [B,2]. In training a batch falls into as many parts as there are stages; else every example is seen in all.
  sampler: its steps are of each stage. UserError where the signal does not divide.
  """

  backbone: nn.Module
  stages: int = 4
  label_drop: float = 0.1
  sampler: Sampler = aside(Euler(30))
  guidance: float = aside(1.0)

  def _told(self, stage: int, noise: Array) -> Array:
    """noise [B] -> the times [B,2] that the network is told."""
    return jnp.stack([noise, jnp.full_like(noise, 1 - 2.0**-stage)], 1)

  def _check(self, shape: tuple[int, ...]) -> None:
    """shape [*s,D] of a signal."""
    if any(n % 2 ** (self.stages - 1) for n in shape[:-1]):
      raise UserError(f"{self.stages} stages need axes that {2 ** (self.stages - 1)} divides, not {shape[:-1]}")

  def loss(self, latent: Latent, cond: Cond | None, *, train: bool) -> Terms:
    """{"flow": mean |v_hat - (begin - end)|^2 over all examples, each in one stage}; random times and noise."""
    if latent.z is None or latent.mask is not None:
      raise UserError("PixelFlow needs a continuous latent on a whole grid")
    z = latent.z.astype(jnp.float32)
    self._check(z.shape[1:])
    if train and cond is not None and self.conditions:
      cond = drop(self.make_rng("prior"), cond, self.label_drop)
    batch, total = z.shape[0], 0.0
    for stage in range(self.stages):
      apart = train and batch >= self.stages
      mine = slice(stage * batch // self.stages, (stage + 1) * batch // self.stages) if apart else slice(None)
      told = None if cond is None else {name: value[mine] for name, value in cond.items()}
      total = total + self._stage(stage, z[mine], told, train)
    return {"flow": total / self.stages}

  def _stage(self, stage: int, z: Array, cond: Cond | None, train: bool) -> Array:
    """The loss of one stage on the signals z [b,*s,D]."""
    nominal, first, last = spans(self.stages, z.ndim - 2)[stage]
    for _ in range(self.stages - 1 - stage):
      z = halved(z)
    eps = jax.random.normal(self.make_rng("prior"), z.shape)
    u = jax.random.uniform(self.make_rng("prior"), z.shape[:1])
    begin = (1 - first) * nearest(halved(z)) + first * eps if stage else eps
    end = (1 - last) * z + last * eps
    wide = u.reshape(-1, *(1,) * (z.ndim - 1))
    x = wide * begin + (1 - wide) * end
    out = self.backbone(x, self._told(stage, last + u * (nominal - last)), cond, train=train)
    if out.shape != x.shape:
      raise UserError(f"the backbone gives {out.shape} for signals of {x.shape}: set its `out` to None")
    return jnp.square(out - (begin - end)).mean()

  def sample(
    self, cond: Cond | None, *, shape: tuple[int, ...], guidance: float | None = None, count: int = 1
  ) -> Latent:
    """See `Prior.sample`; z [B,*shape]."""
    self._check(shape)
    scale = self.guidance if guidance is None else guidance
    check_guidance(scale, self.conditions)
    batch = count if cond is None else rows(cond)
    cond = cond if self.conditions else None
    keys = sample_keys(self.make_rng("prior"), batch)
    null, both = without(cond, batch), doubled(cond, batch)
    backbone, variables = self.backbone.unbind()
    coarse = tuple(n // 2 ** (self.stages - 1) for n in shape[:-1])
    x = _noise(keys, 0, (*coarse, shape[-1]))
    for stage, (nominal, _, last) in enumerate(spans(self.stages, len(coarse))):
      if stage:
        side = tuple(n * 2 for n in x.shape[1:-1])
        x = jump(x, nominal, _noise(keys, stage, (*side, shape[-1])))

      def network(
        x: Array, u: Array, told: Cond | None, stage: int = stage, a: float = nominal, b: float = last
      ) -> Array:
        seen = self._told(stage, jnp.broadcast_to(b + u * (a - b), x.shape[:1]))
        return backbone.apply(variables, x, seen, told, train=False)  # pyright: ignore

      def guided(x: Array, u: Array, network=network) -> Array:
        if scale == 1.0 or scale == 0.0:
          return network(x, u, cond if scale else null)
        unconditional, conditional = jnp.split(network(jnp.concatenate([x, x]), u, both), 2)
        return guide(unconditional, conditional, scale)

      own = jax.vmap(lambda key, stage=stage: jax.random.fold_in(key, self.stages + stage))(keys)
      x = self.sampler(Process().field(guided), x, grid(self.sampler.steps), keys=own)
    return Latent(z=x)


def _noise(keys: Array, number: int, shape: tuple[int, ...]) -> Array:
  """[B,*shape]: of sample i by fold_in(keys[i], number)."""
  return jax.vmap(lambda key: jax.random.normal(jax.random.fold_in(key, number), shape))(keys)
