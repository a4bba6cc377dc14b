"""All members of each kind, so that one property test covers every one of them.

A member is (name, constructor without arguments, example input shape without the batch).
A new part is tested the moment it has a line here.
"""

from latents.backbones import DiT, Transformer, UNet
from latents.bottlenecks import (
  EMAVQ,
  FSQ,
  KL,
  Hierarchy,
  LayerNormLatent,
  NestedDropout,
  NoBottleneck,
  ResidualFSQ,
  VQReg,
)
from latents.conditioners import Labels, Text
from latents.data import Digits, Photos, Shapes, Topics
from latents.decoders import (
  Categorical,
  ConvDecoder,
  Equivariant,
  FlowDecoder,
  Gained,
  IdentityDecoder,
  QueryDecoder,
  WaveDecoder,
)
from latents.diffusion import (
  DDPM,
  Betas,
  Consistency,
  Cosine,
  DPMSolver2M,
  Euler,
  Heun,
  Linear,
  Process,
  Steps,
  Strided,
  Uniform,
)
from latents.discriminators import BandSTFT, MultiPeriod, PatchGAN
from latents.encoders import ConvEncoder, Downsample, Embedded, Gain, IdentityEncoder, QueryEncoder, WaveEncoder
from latents.evaluate import (
  PSNR,
  SSIM,
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
  LPIPSMetric,
  Novelty,
  Numbers,
  PrecisionRecall,
  Signals,
  Smoothness,
  Spectrum,
  TokenAccuracy,
)
from latents.losses import L1, L2, CrossEntropy, LPIPSLoss, MultiScaleSTFT, Perceptual
from latents.priors import AutoregressivePrior, ConsistencyDistillation, FlowPrior
from tests import sources

# -- encoders: (name, make, signal shape [*S,C])
ENCODERS = [
  ("conv", lambda: ConvEncoder(ch=8, mult=(1, 2, 2), blocks=1, out=4, attention=(1,)), (16, 8, 3)),
  ("conv remat", lambda: ConvEncoder(ch=8, mult=(1, 2), blocks=1, out=4, remat=True, mid_attention=False), (8, 8, 1)),
  ("conv 1d", lambda: ConvEncoder(ch=8, mult=(1, 2), blocks=1, out=4), (16, 2)),
  ("conv 3d", lambda: ConvEncoder(ch=8, mult=(1, 2), blocks=1, out=4), (4, 8, 8, 1)),
  ("downsample", lambda: Downsample(factor=2), (8, 8, 3)),
  ("identity", lambda: IdentityEncoder(), (8, 8, 3)),
  ("query", lambda: QueryEncoder(width=16, depth=2, heads=2, patch=4, tokens=6, out=5), (16, 8, 3)),
  ("query remat", lambda: QueryEncoder(width=16, depth=2, heads=2, patch=4, tokens=6, out=5, remat=True), (16, 1)),
  ("wave", lambda: WaveEncoder(ch=4, strides=(2, 3, 4), out=6), (48, 2)),
  ("wave elu", lambda: WaveEncoder(ch=4, strides=(2, 4), out=6, activation="elu"), (64, 1)),
  ("gain", lambda: Gain(WaveEncoder(ch=4, strides=(2, 4), out=6)), (64, 2)),
]


def hierarchy() -> Hierarchy:
  """Two grids with vocabularies of their own, the top half as wide."""
  down = ConvEncoder(ch=8, mult=(1, 1), blocks=1, out=5, mid_attention=False)
  back = ConvDecoder(ch=8, mult=(1, 1), blocks=1, channels=4, mid_attention=False)
  return Hierarchy(down, EMAVQ(vocab=16, dim=3), back, FSQ(levels=(5, 3)), grid=(4, 4))


# -- encoders of tokens: (name, make, signal shape [*S])
TOKEN_ENCODERS = [
  ("embedded", lambda: Embedded(ConvEncoder(ch=8, mult=(1, 2), blocks=1, out=4), vocab=20, width=6), (16,)),
]

# -- bottlenecks: (name, make, encoder output shape [*s,E])
BOTTLENECKS = [
  ("none", lambda: NoBottleneck(), (4, 4, 6)),
  ("none projected", lambda: NoBottleneck(dim=3), (4, 4, 6)),
  ("layer norm", lambda: LayerNormLatent(), (4, 4, 6)),
  ("kl", lambda: KL(dim=3), (4, 4, 6)),
  ("kl 1d", lambda: KL(dim=3), (8, 6)),
  ("ema vq", lambda: EMAVQ(vocab=16, dim=3), (4, 4, 6)),
  ("ema vq restart", lambda: EMAVQ(vocab=16, dim=6, restart=0.1, kmeans=2, project=False), (4, 4, 6)),
  ("fsq", lambda: FSQ(levels=(5, 4, 3)), (4, 4, 6)),
  ("fsq unprojected", lambda: FSQ(levels=(8, 6, 5), project=False), (8, 3)),
  ("residual fsq", lambda: ResidualFSQ(levels=(5, 4, 3), quantizers=3), (4, 4, 6)),
  ("residual fsq binary", lambda: ResidualFSQ(levels=(2, 2), quantizers=5, project=False), (4, 2)),
  ("vq reg", lambda: VQReg(EMAVQ(vocab=16, dim=3)), (4, 4, 6)),
  ("hierarchy", hierarchy, (4, 4, 6)),
  ("nested kl", lambda: NestedDropout(KL(dim=3)), (8, 6)),
  ("nested fsq", lambda: NestedDropout(FSQ(levels=(5, 4, 3)), minimum=2), (4, 4, 6)),
  ("nested residual fsq", lambda: NestedDropout(ResidualFSQ(levels=(5, 4, 3), quantizers=2)), (8, 6)),
]

# -- decoders: (name, make, latent shape [*s,D], signal shape [*S,C])
DECODERS = [
  ("conv", lambda: ConvDecoder(ch=8, mult=(1, 2, 2), blocks=1, channels=1, attention=(1,)), (4, 2, 4), (16, 8, 1)),
  (
    "conv remat",
    lambda: ConvDecoder(ch=8, mult=(1, 2), blocks=1, remat=True, mid_attention=False),
    (4, 4, 2),
    (8, 8, 3),
  ),
  ("conv 1d", lambda: ConvDecoder(ch=8, mult=(1, 2), blocks=1, channels=2), (8, 2), (16, 2)),
  ("identity", lambda: IdentityDecoder(), (8, 8, 3), (8, 8, 3)),
  ("query", lambda: QueryDecoder(grid=(4, 2), width=16, depth=2, heads=2, patch=4), (6, 5), (16, 8, 3)),
  ("wave", lambda: WaveDecoder(ch=4, strides=(2, 3, 4), channels=2), (2, 6), (48, 2)),
  ("wave elu", lambda: WaveDecoder(ch=4, strides=(2, 4), activation="elu"), (8, 6), (64, 1)),
  (
    "equivariant",
    lambda: Equivariant(ConvDecoder(ch=8, mult=(1, 2), blocks=1, mid_attention=False)),
    (4, 4, 2),
    (8, 8, 3),
  ),
  ("gained", lambda: Gained(WaveDecoder(ch=4, strides=(2, 4))), (8, 6), (64, 1)),
  ("flow", lambda: FlowDecoder(UNet(8, mult=(1, 2), blocks=1, out=1), stride=4, channels=1), (2, 4, 3), (8, 16, 1)),
]

# -- decoders of tokens: (name, make, latent shape [*s,D], signal shape [*S], vocab)
TOKEN_DECODERS = [
  ("categorical", lambda: Categorical(ConvDecoder(ch=8, mult=(1, 2), blocks=1, channels=20)), (8, 3), (16,), 20),
]

# -- backbones: (name, make, input shape [*s,D])
BACKBONES = [
  ("dit", lambda: DiT(2, 16, 2, classes=3), (4, 4, 3)),
  ("dit-tokens", lambda: DiT(1, 16, 2, patch=1, classes=3, position="none", remat="block"), (6, 5)),
  ("dit-video", lambda: DiT(1, 12, 2), (2, 4, 4, 3)),
  ("unet", lambda: UNet(8, (1, 2), 1, attention=(1,), classes=3), (4, 4, 3)),
  ("unet-add", lambda: UNet(64, (1, 1), 1, film=False), (4, 4, 2)),
]

# -- paths of diffusion: (name, make)
PATHS = [
  ("linear", Linear),
  ("betas", Betas),
  ("betas-root", lambda: Betas(0.0015, 0.0195, rise="root")),
  ("cosine", Cosine),
]

# -- samplers: (name, make), of a few steps
SAMPLERS = [
  ("euler", lambda: Euler(6)),
  ("heun", lambda: Heun(6)),
  ("ddpm", lambda: DDPM(6)),
  ("ddpm-large", lambda: DDPM(6, "large")),
  ("dpm-solver-2m", lambda: DPMSolver2M(6)),
  ("consistency", lambda: Consistency(6)),
]

# -- conditioners: (name, make)
CONDITIONERS = [
  ("labels", Labels),
  ("text", lambda: Text(texts=("zero", "one", "two"), length=4, size=6)),
]

# -- priors: (name, make, per-sample latent shape, vocab, or one a token, or None)
PRIORS = [
  ("flow", lambda: FlowPrior(DiT(1, 16, 2, classes=3), sampler=Euler(4)), (4, 4, 3), None),
  ("flow-heun", lambda: FlowPrior(DiT(1, 16, 2, patch=1), Uniform(), shift=2.0, sampler=Heun(3)), (6, 3), None),
  (
    "flow-ddpm",
    lambda: FlowPrior(
      DiT(1, 16, 2, classes=3, out=6),
      Steps(),
      sampler=DDPM(4, "learned"),
      process=Process(Betas(), "noise", variance="learned"),
      grid=Strided(),
    ),
    (4, 4, 3),
    None,
  ),
  (
    "consistency",
    lambda: ConsistencyDistillation(
      backbone=DiT(1, 16, 2, classes=3), teacher=FlowPrior(DiT(1, 16, 2, classes=3)), teacher_guidance=2.0, decay=0.0
    ),
    (4, 4, 3),
    None,
  ),
  (
    "autoregressive",
    lambda: AutoregressivePrior(Transformer(11, 16, 1, 2, length=16, classes=3, multiple=8), top_k=5, top_p=0.9),
    (4, 4),
    11,
  ),
  (
    "autoregressive-levels",
    lambda: AutoregressivePrior(Transformer(7, 16, 1, 2, length=12, groups=3, position="sincos", multiple=8)),
    (2, 2, 3),
    7,
  ),
  (
    "autoregressive-grids",
    lambda: AutoregressivePrior(
      Transformer((5, 9), 16, 1, 2, length=20, classes=3, multiple=8, layout=((2, 2), (4, 4))), top_p=0.9
    ),
    (20,),
    (5,) * 4 + (9,) * 16,
  ),
]

# -- discriminators: (name, make, signal shape [*S,C])
DISCRIMINATORS = [
  ("patchgan", lambda: PatchGAN(ch=4, layers=2), (16, 16, 3)),
  ("patchgan-audio", lambda: PatchGAN(ch=4, layers=3, norm="group"), (40, 1)),
  ("patchgan-video", lambda: PatchGAN(ch=4, layers=1, norm="none"), (6, 8, 8, 1)),
  ("multi-period", lambda: MultiPeriod(periods=(2, 3), widths=(4, 6)), (40, 2)),
  ("band-stft", lambda: BandSTFT(windows=(32, 16), bands=((0.0, 0.5), (0.5, 1.0)), ch=3), (40, 2)),
]

# -- losses: (name, make, signal shape [*S,C])
LOSSES = [
  ("l1", L1, (8, 8, 3)),
  ("l1-audio", L1, (20, 1)),
  ("l2", L2, (8, 8, 3)),
  ("perceptual", lambda: Perceptual(side=32), (16, 16, 1)),
  ("perceptual-video", lambda: Perceptual(layers=(0, 1), side=16), (2, 16, 16, 3)),
  ("lpips", LPIPSLoss, (32, 32, 3)),
  ("stft", lambda: MultiScaleSTFT(windows=(8, 32, 64)), (40, 2)),  # the last is longer than the signal
]

# -- losses of tokens: (name, make, signal shape [*S], vocab)
TOKEN_LOSSES = [
  ("cross entropy", CrossEntropy, (12,), 20),
]

# -- metrics of reconstructions, of latents, of samples: (name, make)
METRICS = [
  ("psnr", PSNR),
  ("ssim", SSIM),
  ("energy", Energy),
  ("lpips", LPIPSMetric),
  ("tokens", TokenAccuracy),
]
LATENT_METRICS = [
  ("gaussian capacity", GaussianCapacity),
  ("code capacity", CodeCapacity),
  ("numbers", Numbers),
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
  ("novelty of sound", lambda: Novelty(Signals("audio", 8_000))),
]

# -- sources: (name, make)
SOURCES = [
  ("digits", lambda: Digits(size=8)),
  ("shapes", lambda: Shapes(size=16, count=60, test=20)),
  ("photos", lambda: Photos(size=32, count=40)),
  ("folder", sources.folder),
  ("tfds", sources.tfds),
  ("audio", sources.audio),
  ("video", sources.video),
  ("strips", sources.strips),
  ("text", sources.text),
  ("topics", lambda: Topics(length=48)),
]
