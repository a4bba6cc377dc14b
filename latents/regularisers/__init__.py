"""Regularisers: losses that shape the latent, or a hidden layer. The contract is that of a loss (`losses.base.Loss`).

A `Teacher` is a frozen network of features: of a file (`load`), or of another stage that is trained first (`of`).
"""

from latents.regularisers.alignment import Alignment
from latents.regularisers.next_token import NextToken
from latents.regularisers.repa import REPA
from latents.regularisers.teachers import EfficientNetTeacher, StageTeacher, Teacher

__all__ = ["REPA", "Alignment", "EfficientNetTeacher", "NextToken", "StageTeacher", "Teacher"]
