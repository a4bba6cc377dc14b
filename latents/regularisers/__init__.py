"""Regularisers: losses that shape the latent. The contract is that of a loss (`losses.base.Loss`)."""

from latents.regularisers.alignment import Alignment, Teacher
from latents.regularisers.next_token import NextToken

__all__ = ["Alignment", "NextToken", "Teacher"]
