"""Members of `latents/discriminators`."""

from latents.discriminators import BandSTFT, FeatureHeads, MultiPeriod, PatchGAN, SpectralNorm, StyleGAN

# -- discriminators: (name, make, signal shape [*S,C])
DISCRIMINATORS = [
  ("patchgan", lambda: PatchGAN(ch=4, layers=2), (16, 16, 3)),
  ("patchgan-audio", lambda: PatchGAN(ch=4, layers=3, norm="group"), (40, 1)),
  ("patchgan-video", lambda: PatchGAN(ch=4, layers=1, norm="none"), (6, 8, 8, 1)),
  ("stylegan", lambda: StyleGAN(base=64, most=8), (16, 16, 3)),
  ("stylegan-audio", lambda: StyleGAN(base=64, most=8, group=2), (64, 2)),
  ("stylegan-video", lambda: StyleGAN(base=32, most=8, group=0), (2, 16, 8, 1)),
  ("features", lambda: FeatureHeads(layers=(1, 3), ch=6, width=5, side=32), (16, 16, 1)),
  ("features-video", lambda: FeatureHeads(layers=(0, 1), ch=4, width=4, side=16), (2, 16, 16, 3)),
  ("spectral-patchgan", lambda: SpectralNorm(PatchGAN(ch=4, layers=2, norm="none")), (16, 16, 3)),
  ("spectral-features", lambda: SpectralNorm(FeatureHeads(layers=(0, 2), ch=4, width=4, side=32)), (16, 16, 3)),
  ("multi-period", lambda: MultiPeriod(periods=(2, 3), widths=(4, 6)), (40, 2)),
  ("band-stft", lambda: BandSTFT(windows=(32, 16), bands=((0.0, 0.5), (0.5, 1.0)), ch=3), (40, 2)),
]
