"""Members of `latents/losses`."""

from latents.losses import (
  L1,
  L2,
  Charbonnier,
  CrossEntropy,
  Huber,
  LogitLaplace,
  LowPass,
  LPIPSLoss,
  MultiScaleSTFT,
  Perceptual,
  Wavelet,
)

# -- losses: (name, make, signal shape [*S,C])
LOSSES = [
  ("l1", L1, (8, 8, 3)),
  ("l1-audio", L1, (20, 1)),
  ("l2", L2, (8, 8, 3)),
  ("huber", lambda: Huber(delta=0.2), (8, 8, 3)),
  ("charbonnier", Charbonnier, (20, 1)),
  ("low pass", lambda: LowPass(factor=4), (4, 8, 8, 1)),
  ("wavelet", lambda: Wavelet(levels=2), (8, 12, 3)),
  ("wavelet-audio", Wavelet, (20, 2)),
  ("wavelet-video", Wavelet, (4, 8, 6, 1)),
  ("perceptual", lambda: Perceptual(side=32), (16, 16, 1)),
  ("perceptual-video", lambda: Perceptual(layers=(0, 1), side=16), (2, 16, 16, 3)),
  ("lpips", LPIPSLoss, (32, 32, 3)),
  ("stft", lambda: MultiScaleSTFT(windows=(8, 32, 64)), (40, 2)),  # the last is longer than the signal
]


# -- losses of tokens: (name, make, signal shape [*S], vocab)
TOKEN_LOSSES = [
  ("cross entropy", CrossEntropy, (12,), 20),
]


# -- losses of a distribution: (name, make, signal shape [*S,C], parameters a number)
DISTRIBUTION_LOSSES = [
  ("logit-laplace", LogitLaplace, (6, 4, 3), 2),
]
