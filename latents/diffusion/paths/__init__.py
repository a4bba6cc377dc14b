"""Paths between data and noise, one a file. Contract: `base.Path`, frozen dataclasses."""

from latents.diffusion.paths.base import Kind, Path, spread
from latents.diffusion.paths.betas import Betas
from latents.diffusion.paths.cosine import Cosine
from latents.diffusion.paths.exploding import Exploding
from latents.diffusion.paths.linear import Linear

__all__ = ["Betas", "Cosine", "Exploding", "Kind", "Linear", "Path", "spread"]
