"""Shaping the latent: equivariance, alignment, priors in the loop."""
