"""The encoder of a cascade: the small picture itself (Ho et al. 2021, arXiv:2106.15282)."""

import flax.linen as nn

from latents.errors import UserError
from latents.types import Array


class Downsample(nn.Module):
  """x [B,*S,C] -> [B,*S/factor,C]: means over cells of `factor` along each axis; no parameters.

  With a generative decoder over it the autoencoder is a super-resolution stage, and its prior the base model, which
  draws small pictures. Raises UserError where an axis does not divide.
  """

  factor: int = 4

  def __call__(self, x: Array, *, train: bool) -> Array:
    """See the class."""
    axes = x.ndim - 2
    if any(n % self.factor for n in x.shape[1:-1]):
      raise UserError(f"a signal of {x.shape[1:-1]} does not divide into cells of {self.factor}")
    return nn.avg_pool(x, (self.factor,) * axes, (self.factor,) * axes)
