"""Models of stage 1: signal -> Latent -> signal."""

from latents.autoencoders.plain import Autoencoder

__all__ = ["Autoencoder"]
