"""The decoder that does nothing; see `encoders/identity.py`."""

from latents.decoders.base import Decoder, read_z
from latents.types import Array, Latent


class IdentityDecoder(Decoder):
  """z [B,*S,C] -> x = z; no parameters, so `last` is empty."""

  def reconstruct(self, latent: Latent, *, train: bool) -> Array:
    """z [B,*S,C] -> same."""
    return read_z(latent)
