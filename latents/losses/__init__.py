"""Losses: one pure term a file.

The contract (`base.Loss`): a frozen dataclass with `weight` and `start`; `measure(seen, own, aux=, key=)` reads one
training pass (`types.Seen`) and gives a `Term`, float32, the mean over batch and elements, unweighted. `load()` gives
frozen networks' parameters (passed back as `aux`, an argument of the step), `abstract()` their shapes, `gate(step)` the
schedule in [0, 1]. `init` gives the variables of a network that the loss owns; `reads` names parts of the model whose
outputs it wants; `at` balances it against the reconstruction losses.
  Reconstruction  compares x_hat with its target: `loss(x, x_hat, aux=...)`
  Weight          weighs a term that the model itself makes; `Capacity` holds it at a value
  Likelihood      compares as a reconstruction does, under a scale that it learns
  Rival           has a network with an objective of its own (`Adversarial`; `PairAdversarial` and
                  `ConditionalAdversarial` see more than the signal)
`Balancer` and `GradientNorm` scale what they push at x_hat. `conversions` has the weights of other reductions.
"""

from latents.losses.adversarial import Adversarial
from latents.losses.balancer import Balancer, GradientNorm
from latents.losses.base import Loss, Reconstruction, Rival, Term, Weight
from latents.losses.capacity import Capacity
from latents.losses.conditional import ConditionalAdversarial
from latents.losses.cross_entropy import CrossEntropy
from latents.losses.likelihood import Likelihood
from latents.losses.logit_laplace import LogitLaplace
from latents.losses.pair import PairAdversarial
from latents.losses.perceptual import LPIPSLoss, Perceptual
from latents.losses.regression import L1, L2, Charbonnier, Huber, LowPass
from latents.losses.spectral import MultiScaleSTFT
from latents.losses.wavelet import Wavelet

__all__ = [
  "L1", "L2", "Adversarial", "Balancer", "Capacity", "Charbonnier", "ConditionalAdversarial", "CrossEntropy",
  "GradientNorm", "Huber", "LPIPSLoss", "Likelihood", "LogitLaplace", "Loss", "LowPass", "MultiScaleSTFT",
  "PairAdversarial", "Perceptual", "Reconstruction", "Rival", "Term", "Wavelet", "Weight",
]  # fmt: skip
