"""A diffusion decoder with one loss: DiTo (Chen, Girdhar, Wang, Rambhatla, Misra 2025, arXiv:2501.18593)."""

import dataclasses
from typing import ClassVar

import flax.linen as nn
import jax
import jax.numpy as jnp

from latents.decoders.base import Decoder, read_z
from latents.diffusion.grids import grid
from latents.diffusion.process import Process
from latents.diffusion.samplers import Euler, Sampler
from latents.errors import UserError
from latents.nn.conv import nearest
from latents.types import Array, Decoded, Latent, aside, later


class FlowDecoder(Decoder):
  """z [B,*s,D] -> a sample of x [B,*s*stride,channels] by flow matching on x, conditioned on z.

  The backbone sees x_tau and z (nearest-upsampled by `stride`) side by side in its channels, gives v = eps - x,
  and must have out = channels. What it is told besides, a label or a text, comes with the latent (`Latent.given`), as a
  super-resolution stage wants it (Ho et al. 2021, arXiv:2106.15282). Loss (section 3.1), tau ~ U(0,1) per sample:
    {"flow"}: mean |v(x_tau, tau, z) - (eps - x)|^2,  x_tau = (1 - tau) x + tau eps.
  Its gradient reaches the encoder through z. Decoded.x is the one-step estimate x_tau - tau v, whose error in
  x is blur where tau is large. Random numbers: rng "decoder", in training and in sampling.
  sampler: its `steps` are the default of `sample`. DiTo itself takes 50 Euler steps. process: path, and what the
  backbone predicts on it; with a learned variance out = 2 channels, and a second term {"vlb"} with its weight in it.
  `last` is that of a `UNet` backbone.
  """

  last: ClassVar[tuple[str, ...]] = ("backbone", "conv_out", "kernel")
  variants: ClassVar[tuple[tuple[str, int | None], ...]] = (("2 steps", 2), ("20 steps", 20))

  backbone: nn.Module
  stride: int = 8
  channels: int = 3
  sampler: Sampler = aside(Euler(20))
  process: Process = later(Process())

  @property
  def conditions(self) -> tuple[str, ...]:  # pyright: ignore[reportIncompatibleVariableOverride]
    """The backbone's."""
    return self.backbone.conditions  # pyright: ignore[reportAttributeAccessIssue]

  @property
  def classes(self) -> int:  # pyright: ignore[reportIncompatibleVariableOverride]
    """The backbone's."""
    return self.backbone.classes  # pyright: ignore[reportAttributeAccessIssue]

  def __call__(self, latent: Latent, x: Array, *, train: bool) -> Decoded:
    """Latent, x [B,*S,channels] -> Decoded(one-step estimate of x, {"flow"}); random also where train is False."""
    wanted = self._signal_shape(read_z(latent))
    if x.shape != wanted:
      raise UserError(f"FlowDecoder(stride={self.stride}, channels={self.channels}) makes {wanted}, not {x.shape}")
    x = x.astype(jnp.float32)
    key_tau, key_eps = jax.random.split(self.make_rng("decoder"))
    tau = jax.random.uniform(key_tau, x.shape[:1])
    eps = jax.random.normal(key_eps, x.shape)
    noisy = self.process.path.mix(x, eps, tau)
    out = self._network(self.backbone, noisy, tau, latent, train)
    terms = {}
    for name, (error, weight) in self.process.terms(out, x, eps, noisy, tau).items():
      terms[name] = error.mean() if weight == 1.0 else weight * error.mean()
    return Decoded(x=self.process.data(out, noisy, tau), terms=terms)

  def sample(self, latent: Latent, *, steps: int | None = None) -> Array:
    """Latent -> x: `steps` steps from noise; sample i has the key fold_in(rng "decoder", i), whatever the batch."""
    z = read_z(latent)
    shape = self._signal_shape(z)
    key = self.make_rng("decoder")
    keys = jax.vmap(lambda i: jax.random.fold_in(key, i))(jnp.arange(z.shape[0]))
    noise = jax.vmap(lambda k: jax.random.normal(k, shape[1:]))(keys) * self.process.path.scale
    backbone, variables = self.backbone.unbind()  # a bound module must not be called inside the sampler's scan

    def network(x: Array, tau: Array) -> Array:
      def call(bound: nn.Module) -> Array:
        return self._network(bound, x, jnp.full(x.shape[:1], tau), latent, False)

      return nn.apply(call, backbone)(variables)

    sampler = self.sampler if steps is None else dataclasses.replace(self.sampler, steps=steps)
    return sampler(self.process.field(network), noise, grid(sampler.steps), keys=keys)

  def _signal_shape(self, z: Array) -> tuple[int, ...]:
    return (z.shape[0], *(n * self.stride for n in z.shape[1:-1]), self.channels)

  def _network(self, backbone: nn.Module, x: Array, tau: Array, latent: Latent, train: bool) -> Array:
    wide = nearest(read_z(latent), self.stride)
    x, tau = self.process.inputs(x, tau)
    out = backbone(jnp.concatenate([x, wide], -1), tau, latent.given, train=train)
    if out.shape != (*x.shape[:-1], wanted := self.process.width(self.channels)):
      raise UserError(f"the backbone of a FlowDecoder gives {out.shape[-1]} channels, set its out={wanted}")
    return out.astype(jnp.float32)
