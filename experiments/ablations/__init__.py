"""Sweeps: `latents ablate FILE` runs the variants of each and judges what their papers say of them."""
