"""Reconstruction losses: one pure term a file.

The contract (`base.Loss`): a frozen dataclass with `weight` and `start`; `loss(x, x_hat, aux=...)` gives
one float32 scalar, the mean over batch and elements, unweighted. `load()` gives the frozen networks'
parameters (passed back as `aux`, an argument of the step), `abstract()` their shapes, `gate(step)` the
schedule in [0, 1]. `Weight` weighs a term that the model itself makes; `Adversarial` owns its
discriminator and that one's optimiser, and is computed from logits.
"""

from latents.losses.adversarial import Adversarial
from latents.losses.base import Loss, Weight
from latents.losses.perceptual import LPIPSLoss, Perceptual
from latents.losses.regression import L1, L2
from latents.losses.spectral import MultiScaleSTFT

__all__ = ["L1", "L2", "Adversarial", "LPIPSLoss", "Loss", "MultiScaleSTFT", "Perceptual", "Weight"]
