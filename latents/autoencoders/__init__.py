"""Models of stage 1: signal -> Latent -> signal.

The contract, of which `Autoencoder` is the plain member: `__call__(x, *, train) -> (Latent, Decoded)` is a training
pass; `encode`, `store`/`recall` (what a cache keeps), `decode`, `decodings` (every way offered), `last(where)` (the
path of a last kernel, for adaptive weights), and the attributes `encoder` and `bottleneck`, which make the latent.
"""

from latents.autoencoders.plain import Autoencoder
from latents.autoencoders.stacked import Stacked

__all__ = ["Autoencoder", "Stacked"]
