"""Paths between data and noise, one a file. Contract: `base.Path`, frozen dataclasses."""

from latents.diffusion.paths.base import Kind, Path, spread
from latents.diffusion.paths.betas import Betas
from latents.diffusion.paths.continuous import Continuous
from latents.diffusion.paths.cosine import Cosine
from latents.diffusion.paths.exploding import Exploding
from latents.diffusion.paths.linear import Linear
from latents.diffusion.paths.shifted_cosine import ShiftedCosine

AnyPath = Linear | Betas | Continuous | Cosine | ShiftedCosine | Exploding  # what a declaration may hold

__all__ = ["AnyPath", "Betas", "Continuous", "Cosine", "Exploding", "Kind", "Linear", "Path", "ShiftedCosine", "spread"]
