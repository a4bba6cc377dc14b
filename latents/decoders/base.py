"""The defaults of a decoder, and what feed-forward ones share."""

from typing import ClassVar

import flax.linen as nn

from latents.errors import UserError
from latents.types import Array, Decoded, Latent


class Decoder(nn.Module):
  """A feed-forward decoder: subclasses give `reconstruct`; see the room's contract in `__init__.py`."""

  last: ClassVar[tuple[str, ...]] = ()
  conditions = ()  # names of what it reads of `latent.given`
  classes = 0  # how many labels it reads; 0 = none
  variants: ClassVar[tuple[tuple[str, int | None], ...]] = (("", None),)

  def __call__(self, latent: Latent, x: Array, *, train: bool) -> Decoded:
    """Latent -> Decoded(x [B,*S,C]) without terms; x is not read."""
    return Decoded(x=self.reconstruct(latent, train=train))

  def sample(self, latent: Latent, *, steps: int | None = None) -> Array:
    """Latent -> x [B,*S,C], deterministic."""
    return self.reconstruct(latent, train=False)

  def reconstruct(self, latent: Latent, *, train: bool) -> Array:
    """Latent -> x [B,*S,C]: the network itself."""
    raise TypeError(f"{type(self).__name__} gives no `reconstruct`")


class Wrapped(Decoder):
  """A decoder around another one, `inner`: what it is and reads is as that one's."""

  inner: Decoder

  @property
  def last(self) -> tuple[str, ...]:  # pyright: ignore[reportIncompatibleVariableOverride]
    """The inner decoder's."""
    return ("inner", *self.inner.last)

  @property
  def conditions(self) -> tuple[str, ...]:  # pyright: ignore[reportIncompatibleVariableOverride]
    """The inner decoder's."""
    return self.inner.conditions

  @property
  def classes(self) -> int:  # pyright: ignore[reportIncompatibleVariableOverride]
    """The inner decoder's."""
    return self.inner.classes

  @property
  def variants(self) -> tuple[tuple[str, int | None], ...]:  # pyright: ignore[reportIncompatibleVariableOverride]
    """The inner decoder's."""
    return self.inner.variants


def read_side(latent: Latent, name: str) -> Array:
  """The latent's side of that name [B,..], or a UserError where nobody has measured or drawn it."""
  if name not in latent.side:
    raise UserError(f"the decoder reads the latent's side '{name}', which this latent lacks: a prior must draw it, too")
  return latent.side[name]


def read_z(latent: Latent) -> Array:
  """The latent's z [B,*s,D], or a UserError where only codes are given."""
  if latent.z is None:
    raise UserError("a decoder reads z: embed the codes first (bottleneck.embed)")
  return latent.z
