"""Networks with conditioning, which priors and generative decoders share.

Contract of a backbone on arrays: `__call__(x [B,*s,D], t [B] in [0,1], cond | None, *, train) ->
[B,*s,out] float32`; `conditions` names what is read of cond (`types.Cond`), None and dropped rows mean that nothing is
known; rng stream "dropout"; with train=False deterministic. One that reads "latent" is a generative decoder's alone:
its z [B,*s,D] stands there, which the network itself makes as large as x.
Contract of a backbone on tokens: `__call__(tokens [B,L], cond, *, train) -> logits [B,L,V]`, `cache(batch, cond)` and
`step(token [B], cond, index [], cache) -> (logits [B,V], cache)`, with the same logits at every position. One without
a cache of its own is a `Stepwise`; over pixels or codes of a grid see `grids`. A backbone on vectors has elements
[B,L,D] in place of tokens, and `out` numbers, which a head reads, in place of V.
Others say what they do: MaskedTransformer (tokens of which some are masked), MaskedAutoencoder (the same of real-valued
ones), ScaleTransformer (tokens of one scale after the other).
"""

from latents.backbones.diffwave import DiffWave
from latents.backbones.dit import DiT, dit_b, dit_l, dit_s, dit_xl
from latents.backbones.masked_autoencoder import MaskedAutoencoder
from latents.backbones.masked_transformer import MaskedTransformer
from latents.backbones.mlp import ResidualMLP
from latents.backbones.mp_unet import MPUNet, edm2
from latents.backbones.pixelcnn import GatedPixelCNN, PixelCNN
from latents.backbones.pixelcnn_pp import PixelCNNPlus
from latents.backbones.pixelrnn import PixelRNN
from latents.backbones.pixelsnail import PixelSNAIL, PixelSNAILCodes
from latents.backbones.rq_transformer import RQTransformer
from latents.backbones.samplernn import SampleRNN
from latents.backbones.scale_transformer import ScaleTransformer, var
from latents.backbones.transformer import Transformer
from latents.backbones.unet import UNet, adm256, ldm4, ldm8, sd1
from latents.backbones.unet_transformer import UNetTransformer
from latents.backbones.uvit import UViT, uvit_h, uvit_l, uvit_m, uvit_s
from latents.backbones.vector_transformer import VectorTransformer
from latents.backbones.wavegrad import WaveGrad
from latents.backbones.wavenet import WaveNet

__all__ = [
  "DiT", "DiffWave", "GatedPixelCNN", "MPUNet", "MaskedAutoencoder", "MaskedTransformer", "PixelCNN", "PixelCNNPlus",
  "PixelRNN", "PixelSNAIL", "PixelSNAILCodes", "RQTransformer", "ResidualMLP", "SampleRNN", "ScaleTransformer",
  "Transformer", "UNet", "UNetTransformer", "UViT", "VectorTransformer", "WaveGrad", "WaveNet", "adm256", "dit_b",
  "dit_l", "dit_s", "dit_xl", "edm2", "ldm4", "ldm8", "sd1", "uvit_h", "uvit_l", "uvit_m", "uvit_s", "var",
]  # fmt: skip
