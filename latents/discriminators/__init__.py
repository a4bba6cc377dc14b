"""Discriminators: x [B,*S,C] in [-1,1] -> `Verdict`: logits [B,...], larger where x looks real, and hidden layers.

The contract: a linen module, `__call__(x, *, train) -> Verdict` in float32. Collections beside the parameters (running
statistics, spectral norm) are carried on by the discriminator's own learning, and by no pass that only asks it.
"""

from latents.discriminators.band_stft import BandSTFT
from latents.discriminators.base import Verdict
from latents.discriminators.multi_period import MultiPeriod
from latents.discriminators.patchgan import PatchGAN

__all__ = ["BandSTFT", "MultiPeriod", "PatchGAN", "Verdict"]
