"""The model of stage 1: an encoder, a bottleneck and a decoder, and nothing else."""

from collections.abc import Mapping

import flax.linen as nn

from latents.bottlenecks import Bottleneck
from latents.decoders import Decoder
from latents.types import Array, Cond, Decoded, Encoded, Latent, Stored


class Autoencoder(nn.Module):
  """signal -> encoder -> bottleneck -> Latent -> decoder -> signal.

  Random streams: "encoder", "bottleneck", "decoder", "dropout" (training); "decoder" (sampling of
  generative decoders). Non-gradient state is in the collection "codebook".
  """

  encoder: nn.Module
  bottleneck: Bottleneck
  decoder: Decoder

  @property
  def conditions(self) -> tuple[str, ...]:
    """Names of what the decoder reads of a condition."""
    return self.decoder.conditions

  @property
  def classes(self) -> int:
    """How many labels the decoder reads; 0 = none."""
    return self.decoder.classes

  def __call__(self, x: Array, *, train: bool, given: Cond | None = None) -> tuple[Latent, Decoded]:
    """x [B,*S,C] in [-1,1] -> the latent and what the decoder makes of it, one training pass. given: what the data say
    of x, for the decoder alone."""
    latent = self.encode(x, train=train).replace(given=given)
    return latent, self.decoder(latent if train else self.bottleneck.settle(latent), x, train=train)

  def encode(self, x: Array, *, train: bool = False) -> Latent:
    """x [B,*S,C] in [-1,1] -> Latent; without `train` deterministic (the mode)."""
    h, side = _features(self.encoder(x, train=train))
    latent = self.bottleneck(h, train=train)
    return latent.replace(side=side) if side else latent

  def store(self, x: Array) -> Stored:
    """x [B,*S,C] -> what a latent cache keeps of it [B,*s,..] (KL: mean and std; discrete: codes), with the side where
    the encoder measures one."""
    h, side = _features(self.encoder(x, train=False))
    stored = self.bottleneck.store(h)
    return Encoded(h=stored, side=side) if side else stored

  def recall(self, stored: Stored, *, train: bool) -> Latent:
    """What `store` gave -> Latent; with `train` a draw of the posterior, else its mode."""
    stored, side = _features(stored)
    latent = self.bottleneck.recall(stored, train=train)
    return latent.replace(side=side) if side else latent

  def decode(self, latent: Latent, *, steps: int | None = None) -> Array:
    """Latent -> x [B,*S,C]; codes are embedded where `z` is None; `steps` is for generative decoders."""
    return self.decoder.sample(self.bottleneck.settle(latent), steps=steps)

  def decodings(self, latent: Latent) -> dict[str, Array]:
    """Every way this model offers to decode: name -> x [B,*S,C]. '' is the plain one if there is one.

    A generative decoder offers numbers of steps, a variable-length latent offers prefixes.
    """
    out = {}
    for which, part in self.bottleneck.variants(self.bottleneck.settle(latent)).items():
      for how, steps in self.decoder.variants:
        out[" ".join(name for name in (which, how) if name)] = self.decoder.sample(part, steps=steps)
    return out

  def last(self, where: str) -> tuple[str, ...]:
    """The path of the last kernel of "encoder" or "decoder" within the parameters (for adaptive weights)."""
    return (where, *getattr(self, where).last)


def _features(made: Stored) -> tuple[Array, Mapping[str, Array]]:
  return (made.h, made.side) if isinstance(made, Encoded) else (made, {})
