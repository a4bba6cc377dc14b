"""Members of `latents/evaluate`."""

from latents.evaluate import (
  PSNR,
  SSIM,
  Bands,
  Channels,
  ClassAgreement,
  CodeCapacity,
  EffectiveDimension,
  EfficientNetFeatures,
  Energy,
  Frechet,
  GaussianCapacity,
  KernelDistance,
  Kurtosis,
  LogMel,
  LPIPSMetric,
  Novelty,
  Numbers,
  Outliers,
  PairedKernel,
  PrecisionRecall,
  SampleSpectrum,
  Scale,
  Signals,
  Smoothness,
  Spectrum,
  TokenAccuracy,
)

# -- metrics of reconstructions, of latents, of samples: (name, make)
METRICS = [
  ("psnr", PSNR),
  ("ssim", SSIM),
  ("energy", Energy),
  ("bands", Bands),
  ("lpips", LPIPSMetric),
  ("log mel", lambda: LogMel(rate=1000, bands=4)),
  ("kernel", lambda: PairedKernel(side=32)),
  ("tokens", TokenAccuracy),
]


LATENT_METRICS = [
  ("gaussian capacity", GaussianCapacity),
  ("code capacity", CodeCapacity),
  ("numbers", Numbers),
  ("outliers", Outliers),
  ("scale", Scale),
  ("spectrum", Spectrum),
  ("smoothness", Smoothness),
  ("dimension", EffectiveDimension),
  ("kurtosis", Kurtosis),
  ("channels", Channels),
]


SAMPLE_METRICS = [
  ("frechet", lambda: Frechet(Signals())),
  ("frechet efficientnet", lambda: Frechet(EfficientNetFeatures(side=32))),
  ("kernel", lambda: KernelDistance(Signals(), subsets=3, size=50)),
  ("precision recall", lambda: PrecisionRecall(Signals())),
  ("agreement", ClassAgreement),
  ("novelty", Novelty),
  ("spectrum", SampleSpectrum),
  ("novelty of sound", lambda: Novelty(Signals("audio", 8_000))),
]
