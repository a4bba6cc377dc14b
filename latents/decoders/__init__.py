"""Decoders: Latent -> Decoded, feed-forward or generative behind one interface.

The contract (class `Decoder`):
  __call__(latent, x [B,*S,C], *, train) -> Decoded; x is the target, which only generative decoders read.
  sample(latent, *, steps=None) -> x [B,*S,C], of tokens int32 [B,*S]; feed-forward decoders ignore steps.
  last: path of the last kernel within the decoder's parameters (the adaptive GAN weight's).
  variants: (name, steps) pairs for evaluations; "" is the plain one.
Decoders read latent.z and latent.mask, and of latent.side what they say. Random numbers come from the stream "decoder".
"""

from latents.decoders.base import Decoder
from latents.decoders.categorical import Categorical
from latents.decoders.conv import ConvDecoder
from latents.decoders.dc import DCDecoder
from latents.decoders.dvae import DVAEDecoder
from latents.decoders.equivariant import Equivariant
from latents.decoders.flow import FlowDecoder
from latents.decoders.gained import Gained
from latents.decoders.identity import IdentityDecoder
from latents.decoders.logit_laplace import LogitLaplaceDecoder
from latents.decoders.query import QueryDecoder
from latents.decoders.strided import StridedDecoder
from latents.decoders.vit import ViTDecoder
from latents.decoders.wave import WaveDecoder

__all__ = [
  "Categorical",
  "ConvDecoder",
  "DCDecoder",
  "DVAEDecoder",
  "Decoder",
  "Equivariant",
  "FlowDecoder",
  "Gained",
  "IdentityDecoder",
  "LogitLaplaceDecoder",
  "QueryDecoder",
  "StridedDecoder",
  "ViTDecoder",
  "WaveDecoder",
]
