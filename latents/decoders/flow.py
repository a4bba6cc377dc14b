"""A diffusion decoder with one loss: DiTo (Chen, Girdhar, Wang, Rambhatla, Misra 2025, arXiv:2501.18593)."""

import dataclasses
from typing import ClassVar, NamedTuple

import flax.linen as nn
import jax
import jax.numpy as jnp

from latents.decoders.base import Decoder, read_z
from latents.diffusion.grids import Even, Grid
from latents.diffusion.process import Process
from latents.diffusion.samplers import Euler, Sampler
from latents.diffusion.times import Steps, Uniform
from latents.errors import UserError
from latents.nn.conv import nearest
from latents.nn.streams import sample_keys
from latents.types import Array, Cond, Decoded, Latent, aside, later


class FlowDecoder(Decoder):
  """z [B,*s,D] -> a sample of x [B,*s*stride,channels] by flow matching on x, conditioned on z.

  The backbone sees x_tau and z (nearest-upsampled by `stride`) side by side in its channels, gives v = eps - x,
  and must have out = channels. One that reads "latent" of its condition gets z there, as it is, and x_tau alone: it
  upsamples itself (a vocoder). What it is told besides, a label or a text, comes with the latent (`Latent.given`), as a
  super-resolution stage wants it (Ho et al. 2021, arXiv:2106.15282). Loss (section 3.1), tau ~ U(0,1) per sample:
    {"flow"}: mean |v(x_tau, tau, z) - (eps - x)|^2,  x_tau = (1 - tau) x + tau eps.
  Its gradient reaches the encoder through z. Decoded.x is the one-step estimate x_tau - tau v, whose error in
  x is blur where tau is large. Random numbers: rng "decoder", in training and in sampling.
  sampler: its `steps` are the default of `sample`. DiTo itself takes 50 Euler steps. process: path, and what the
  backbone predicts on it; with a learned variance out = 2 channels, and a second term {"vlb"} with its weight in it.
  times: distribution of tau in training; grid: the times of sampling. shown: numbers of steps that evaluations decode
  with.
  augment: above 0, noise is put on what the backbone sees of z (conditioning augmentation, Ho et al. 2021, section
  3.2): alpha(s) z + sigma(s) noise on the process's path, s ~ U(0, augment) for each example in training and s = level
  in sampling, and the backbone gets t = (tau, s) [B,2]. z is upsampled first and has white noise then (so does Imagen;
  CDM's algorithm 1 has the noise on the small picture): at s = 0 it is z itself, at s = 1 of the linear path nothing of
  it is left.
  `last` is that of a `UNet` backbone.
  """

  last: ClassVar[tuple[str, ...]] = ("backbone", "conv_out", "kernel")

  backbone: nn.Module
  stride: int = 8
  channels: int = 3
  sampler: Sampler = aside(Euler(20))
  process: Process = later(Process())
  times: Uniform | Steps = later(Uniform())
  grid: Grid = later(Even(), address=False)
  shown: tuple[int, ...] = later((2, 20), address=False)
  augment: float = later(0.0)
  level: float = later(0.0, address=False)

  @property
  def conditions(self) -> tuple[str, ...]:  # pyright: ignore[reportIncompatibleVariableOverride]
    """The backbone's, but z."""
    return tuple(name for name in self.backbone.conditions if name != "latent")  # pyright: ignore[reportAttributeAccessIssue]

  @property
  def classes(self) -> int:  # pyright: ignore[reportIncompatibleVariableOverride]
    """The backbone's."""
    return self.backbone.classes  # pyright: ignore[reportAttributeAccessIssue]

  @property
  def variants(self) -> tuple[tuple[str, int | None], ...]:  # pyright: ignore[reportIncompatibleVariableOverride]
    """Numbers of steps."""
    return tuple((f"{steps} steps", steps) for steps in self.shown)

  def __call__(self, latent: Latent, x: Array, *, train: bool) -> Decoded:
    """Latent, x [B,*S,channels] -> Decoded(one-step estimate of x, {"flow"}); random also where train is False."""
    wanted = self._signal_shape(read_z(latent))
    if x.shape != wanted:
      raise UserError(f"FlowDecoder(stride={self.stride}, channels={self.channels}) makes {wanted}, not {x.shape}")
    x = x.astype(jnp.float32)
    key_tau, key_eps = jax.random.split(self.make_rng("decoder"))
    tau = self.times(key_tau, x.shape[0])
    eps = jax.random.normal(key_eps, x.shape)
    noisy = self.process.path.mix(x, eps, tau)
    out = self._network(self.backbone, noisy, tau, self._told(latent, fixed=False), train)
    terms = {}
    for name, (error, weight) in self.process.terms(out, x, eps, noisy, tau).items():
      terms[name] = error.mean() if weight == 1.0 else weight * error.mean()
    return Decoded(x=self.process.data(out, noisy, tau), terms=terms)

  def sample(self, latent: Latent, *, steps: int | None = None) -> Array:
    """Latent -> x: `steps` steps from noise; sample i has the key fold_in(rng "decoder", i), whatever the batch."""
    z = read_z(latent)
    shape = self._signal_shape(z)
    keys = sample_keys(self.make_rng("decoder"), z.shape[0])
    noise = jax.vmap(lambda k: jax.random.normal(k, shape[1:]))(keys) * self.process.path.scale
    told = self._told(latent, fixed=True)
    backbone, variables = self.backbone.unbind()  # a bound module must not be called inside the sampler's scan

    def network(x: Array, tau: Array) -> Array:
      def call(bound: nn.Module) -> Array:
        return self._network(bound, x, jnp.full(x.shape[:1], tau), told, False)

      return nn.apply(call, backbone)(variables)

    sampler = self.sampler if steps is None else dataclasses.replace(self.sampler, steps=steps)
    return sampler(self.process.field(network), noise, self.grid(sampler.steps), keys=keys)

  def _signal_shape(self, z: Array) -> tuple[int, ...]:
    return (z.shape[0], *(n * self.stride for n in z.shape[1:-1]), self.channels)

  def _told(self, latent: Latent, fixed: bool) -> "Told":
    """What the backbone is told of a latent. fixed: s = level, else drawn for each example."""
    if not 0 <= self.level <= self.augment <= 1:
      raise UserError(
        f"a FlowDecoder's noise on z is 0 <= level <= augment <= 1, not level={self.level}, augment={self.augment}"
      )
    z, given = read_z(latent), latent.given
    inside = "latent" in self.backbone.conditions  # pyright: ignore[reportAttributeAccessIssue]
    z, s = z if inside else nearest(z, self.stride), None
    if self.augment:
      key_s, key_noise = jax.random.split(self.make_rng("decoder"))
      count = z.shape[:1]
      s = jnp.full(count, self.level) if fixed else self.augment * jax.random.uniform(key_s, count)
      noise = jax.vmap(lambda k: jax.random.normal(k, z.shape[1:]))(sample_keys(key_noise, z.shape[0]))
      z = self.process.path.mix(z, noise, s)
    return Told(None, {**(given or {}), "latent": z}, s) if inside else Told(z, given, s)

  def _network(self, backbone: nn.Module, x: Array, tau: Array, told: "Told", train: bool) -> Array:
    x, tau = self.process.inputs(x, tau)
    x = x if told.beside is None else jnp.concatenate([x, told.beside], -1)
    out = backbone(x, tau if told.s is None else jnp.stack([tau, told.s], 1), told.cond, train=train)
    if out.shape != (wanted := (*x.shape[:-1], self.process.width(self.channels))):
      raise UserError(f"the backbone of a FlowDecoder gives {out.shape[-1]} channels, set its out={wanted[-1]}")
    return out.astype(jnp.float32)


class Told(NamedTuple):
  """What a backbone is told of z: in the channels beside x [B,*S,D], in the condition, and how noisy that is, s [B]."""

  beside: Array
  cond: Cond | None
  s: Array
