"""Encoders: x [B,*S,C] float in [-1,1] -> h [B,*s,E], the features that a bottleneck turns into a latent.

The contract: __call__(x, *, train) -> h, or Encoded(h, side) where the encoder measures what the decoder is told beside
h (a gain). Any batch and, where the network is convolutional, any size of signal that its stride divides (else one
UserError). With train False the result is deterministic. A `stride` property gives signal positions per latent position
and axis, where there is a grid.
"""

from latents.encoders.conv import ConvEncoder
from latents.encoders.dc import DCEncoder
from latents.encoders.downsample import Downsample
from latents.encoders.dvae import DVAEEncoder
from latents.encoders.embedded import Embedded
from latents.encoders.gain import Gain
from latents.encoders.identity import IdentityEncoder
from latents.encoders.mel import MelEncoder
from latents.encoders.query import QueryEncoder
from latents.encoders.strided import StridedEncoder
from latents.encoders.vit import ViTEncoder
from latents.encoders.wave import WaveEncoder

__all__ = [
  "ConvEncoder", "DCEncoder", "DVAEEncoder", "Downsample", "Embedded", "Gain", "IdentityEncoder", "MelEncoder",
  "QueryEncoder", "StridedEncoder", "ViTEncoder", "WaveEncoder",
]  # fmt: skip
