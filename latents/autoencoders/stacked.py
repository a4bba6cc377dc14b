"""An autoencoder of the latents of another one."""

import flax.linen as nn
import jax.numpy as jnp

from latents.autoencoders.plain import Autoencoder
from latents.bottlenecks import Bottleneck
from latents.types import Array, Cond, Decoded, Latent


class Units(nn.Module):
  """The statistics of a stage's latents, in the collection "statistics"; 0 and 1 until they are filled."""

  @nn.compact
  def __call__(self, z: Array, back: bool = False) -> Array:
    """z [B,*s,D] -> (z - mean) / std; `back`: the other way."""
    mean = self.variable("statistics", "mean", jnp.zeros, z.shape[-1:]).value
    std = self.variable("statistics", "std", jnp.ones, z.shape[-1:]).value
    return z * std + mean if back else (z - mean) / std


class Stacked(nn.Module):
  """signal -> inner -> normalised latent -> outer -> Latent: `outer` compresses what `inner` has made, as the second
  autoencoder of a cascade or a one-dimensional tokenizer over a grid does (FlexTok, arXiv:2502.13967).

  `inner` is trained elsewhere (`Start(stage, into="inner")`, `trained=("outer",)`) and enters with its mode. `outer`
  is trained to give back z normalised [B,*s,D] by the statistics of that stage, which `Start` fills; its losses see
  these, not the signal. Methods, random streams and collections are those of `Autoencoder`.
  """

  inner: "Autoencoder | Stacked"
  outer: Autoencoder

  def setup(self) -> None:
    """Makes room for the statistics of the inner latents."""
    self.inner_units = Units()

  @property
  def encoder(self) -> nn.Module:
    """The outer one."""
    return self.outer.encoder

  @property
  def bottleneck(self) -> Bottleneck:
    """The outer one: the latent is its."""
    return self.outer.bottleneck

  @property
  def conditions(self) -> tuple[str, ...]:
    """Names of what either decoder reads of a condition."""
    return tuple(dict.fromkeys((*self.outer.conditions, *self.inner.conditions)))

  @property
  def classes(self) -> int:
    """How many labels the decoders read; 0 = none."""
    return max(self.outer.classes, self.inner.classes)

  def __call__(self, x: Array, *, train: bool, given: Cond | None = None) -> tuple[Latent, Decoded]:
    """x [B,*S,C] in [-1,1] -> the outer latent, and its decoding beside what that is compared with."""
    if self.is_initializing():
      self.inner(x, train=train)  # its decoder's variables too
    z = self._inward(x)
    latent, decoded = self.outer(z, train=train, given=given)
    return latent, decoded.replace(target=z if decoded.target is None else decoded.target)

  def encode(self, x: Array, *, train: bool = False) -> Latent:
    """See `Autoencoder.encode`."""
    return self.outer.encode(self._inward(x), train=train)

  def store(self, x: Array) -> Array:
    """See `Autoencoder.store`."""
    return self.outer.store(self._inward(x))

  def recall(self, stored: Array, *, train: bool) -> Latent:
    """See `Autoencoder.recall`."""
    return self.outer.recall(stored, train=train)

  def decode(self, latent: Latent, *, steps: int | None = None) -> Array:
    """Latent -> x [B,*S,C]; `steps` is for a generative outer decoder, the inner one takes its own."""
    return self._outward(self.outer.decode(latent, steps=steps), latent.given)

  def decodings(self, latent: Latent) -> dict[str, Array]:
    """See `Autoencoder.decodings`: the ways of the outer one."""
    return {name: self._outward(z, latent.given) for name, z in self.outer.decodings(latent).items()}

  def last(self, where: str) -> tuple[str, ...]:
    """The path of the last kernel of the outer "encoder" or "decoder"."""
    return ("outer", *self.outer.last(where))

  def _inward(self, x: Array) -> Array:
    return self.inner_units(self.inner.encode(x, train=False).z)

  def _outward(self, z: Array, given: Cond | None) -> Array:
    return self.inner.decode(Latent(z=self.inner_units(z, back=True), given=given))
