"""Binary spherical quantisation (Zhao, Xiong, Kraehenbuehl 2024, arXiv:2406.07548)."""

import math

from latents.bottlenecks.lfq import LFQ
from latents.bottlenecks.nearest import unit
from latents.types import Array


class BSQ(LFQ):
  """[B,*s,E] -> z [B,*s,L] of -1/sqrt(L) and 1/sqrt(L), codes [B,*s], or [B,*s,G] in [0, 2^(L/G)).

  LFQ on the unit sphere (section 4): u = v / |v|, v the (projected) h, and z = sign(u) / sqrt(L), of length 1 as u is:
    |u - z| <= sqrt(2 - 2 / sqrt(L)).
  The gradient to v is tangential. p_i = sigmoid(4 u_i / (sqrt(L) temperature)). Fields, terms and logs are LFQ's; the
  published weights are 0.1 of the entropies (which its code also multiplies by the temperature) and 0 of commit.
  joint: 1 = eq. 8, bits as if independent.
  """

  joint: int | None = 1

  @property
  def scale(self) -> float:
    """What a channel of z is, up to its sign."""
    return 1 / math.sqrt(self.bits)

  def before(self, h: Array) -> Array:
    """[B,*s,E] -> u [B,*s,L] float32 of length 1."""
    return unit(super().before(h))
