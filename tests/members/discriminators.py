"""Members of `latents/discriminators`."""

from latents.discriminators import BandSTFT, MultiPeriod, PatchGAN

# -- discriminators: (name, make, signal shape [*S,C])
DISCRIMINATORS = [
  ("patchgan", lambda: PatchGAN(ch=4, layers=2), (16, 16, 3)),
  ("patchgan-audio", lambda: PatchGAN(ch=4, layers=3, norm="group"), (40, 1)),
  ("patchgan-video", lambda: PatchGAN(ch=4, layers=1, norm="none"), (6, 8, 8, 1)),
  ("multi-period", lambda: MultiPeriod(periods=(2, 3), widths=(4, 6)), (40, 2)),
  ("band-stft", lambda: BandSTFT(windows=(32, 16), bands=((0.0, 0.5), (0.5, 1.0)), ch=3), (40, 2)),
]
