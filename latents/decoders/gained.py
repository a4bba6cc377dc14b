"""The way back from volume normalisation (EnCodec: Defossez et al. 2022, arXiv:2210.13438)."""

from latents.decoders.base import Wrapped, read_side
from latents.types import Array, Decoded, Latent


class Gained(Wrapped):
  """The decoder `inner`, whose signal is multiplied by the latent's side "gain" [B,1], which `encoders.Gain` measures.

  A generative decoder learns the signal as the encoder saw it, x / gain.
  """

  def __call__(self, latent: Latent, x: Array, *, train: bool) -> Decoded:
    """Latent, x [B,*S,C] -> Decoded(x and target as loud as the signal, the inner terms)."""
    gain = _gain(latent, x.ndim)
    made = self.inner(latent, x / gain, train=train)
    return made.replace(x=made.x * gain, target=None if made.target is None else made.target * gain)

  def sample(self, latent: Latent, *, steps: int | None = None) -> Array:
    """Latent -> x [B,*S,C]."""
    x = self.inner.sample(latent, steps=steps)
    return x * _gain(latent, x.ndim)


def _gain(latent: Latent, axes: int) -> Array:
  return read_side(latent, "gain").reshape(-1, *(1,) * (axes - 1))
