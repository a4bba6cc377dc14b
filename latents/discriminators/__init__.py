"""Discriminators: x [B,*S,C] in [-1,1] -> `Verdict`: logits [B,...], larger where x looks real, and hidden layers.

The contract: a linen module, `__call__(x, *, train) -> Verdict` in float32. Collections beside the parameters (running
statistics, spectral norm) are carried on by the discriminator's own learning, and by no pass that only asks it. Those
that look through a frozen network (class `Taught`) are told `frozen=`, what their `load` gave.
"""

from latents.discriminators.band_stft import BandSTFT
from latents.discriminators.base import Taught, Verdict
from latents.discriminators.features import FeatureHeads
from latents.discriminators.multi_period import MultiPeriod
from latents.discriminators.patchgan import PatchGAN
from latents.discriminators.spectral_norm import SpectralNorm
from latents.discriminators.stylegan import StyleGAN

__all__ = ["BandSTFT", "FeatureHeads", "MultiPeriod", "PatchGAN", "SpectralNorm", "StyleGAN", "Taught", "Verdict"]
