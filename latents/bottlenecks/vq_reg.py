"""Vector quantisation as a regulariser: LDM's "VQ-reg" (Rombach et al. 2022, arXiv:2112.10752, section 3.1)."""

from latents.bottlenecks.base import Bottleneck
from latents.bottlenecks.nearest import NearestCode
from latents.types import Array, Latent


class VQReg(Bottleneck):
  """[B,*s,E] -> a continuous z [B,*s,D]: the quantiser `inner` belongs to the decoder, a prior models what enters it.

  train: z is quantised, straight-through, with the inner terms and logs, for the decoder is trained on codes. Else, and
  in a cache, z is the vector in front of the quantiser, and `settle` puts any z, a prior's too, on the nearest row of
  the codebook. There are no codes to the outside.
  """

  inner: NearestCode

  def __call__(self, h: Array, *, train: bool) -> Latent:
    """[B,*s,E] -> Latent without codes."""
    latent = self.inner(h, train=train)
    return latent.replace(codes=None) if train else latent.replace(z=self.inner.before(h), codes=None)

  def store(self, h: Array) -> Array:
    """[B,*s,E] -> what would be quantised [B,*s,D]."""
    return self.inner.before(h)

  def settle(self, latent: Latent) -> Latent:
    """z [B,*s,D] -> the nearest rows of the codebook."""
    return latent.replace(z=self.inner.snap(latent.z))
