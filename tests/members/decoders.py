"""Members of `latents/decoders`."""

from latents.backbones import DiffWave, UNet, WaveGrad
from latents.decoders import (
  Categorical,
  ConvDecoder,
  DCDecoder,
  DVAEDecoder,
  Equivariant,
  FlowDecoder,
  Gained,
  IdentityDecoder,
  LogitLaplaceDecoder,
  QueryDecoder,
  StridedDecoder,
  ViTDecoder,
  WaveDecoder,
)
from latents.diffusion import DDPM, Aligned, Betas, Process, Steps


def vocoder(backbone: DiffWave | WaveGrad, hop: int) -> FlowDecoder:
  """A short chain, few steps."""
  path = Betas(1e-4, 0.05, steps=50)
  grid = Aligned(path, (0.01, 0.1, 0.5))
  return FlowDecoder(
    backbone, hop, 1, DDPM(4), Process(path, predict="noise", error="l1", tell="level"), Steps(50), grid, shown=(3, 5)
  )


# -- decoders: (name, make, latent shape [*s,D], signal shape [*S,C])
DECODERS = [
  ("conv", lambda: ConvDecoder(ch=8, mult=(1, 2, 2), blocks=1, channels=1, attention=(1,)), (4, 2, 4), (16, 8, 1)),
  (
    "conv remat",
    lambda: ConvDecoder(ch=8, mult=(1, 2), blocks=1, remat=True, mid_attention=False),
    (4, 4, 2),
    (8, 8, 3),
  ),
  ("conv 1d", lambda: ConvDecoder(ch=8, mult=(1, 2), blocks=1, channels=2, entry=5), (8, 2), (16, 2)),
  (
    "dc",
    lambda: DCDecoder(
      (4, 8, 16), (0, 1, 2), 1, (2,), (3,), 4, norms=("batch", "batch", "rms"), acts=("relu", "relu", "silu")
    ),
    (4, 2, 8),
    (16, 8, 1),
  ),
  (
    "dc interpolated",
    lambda: DCDecoder((8, 8), (1, 1), 3, (1,), (), 4, True, shortcut=False, norms=("rms", "batch"), acts=("silu",) * 2),
    (4, 4, 4),
    (8, 8, 3),
  ),
  ("dvae", lambda: DVAEDecoder(ch=8, mult=(1, 2, 3), blocks=1, channels=2), (4, 2, 5), (16, 8, 2)),
  ("dvae 1d", lambda: DVAEDecoder(ch=4, mult=(1, 2), channels=2), (8, 3), (16, 2)),
  ("identity", lambda: IdentityDecoder(), (8, 8, 3), (8, 8, 3)),
  ("query", lambda: QueryDecoder(grid=(4, 2), width=16, depth=2, heads=2, patch=4), (6, 5), (16, 8, 3)),
  ("strided", lambda: StridedDecoder(hidden=8, widths=(6,), blocks=1, units=5), (4, 2, 4), (16, 8, 3)),
  ("strided one", lambda: StridedDecoder(hidden=6, widths=(), units=3, channels=1), (4, 4, 2), (8, 8, 1)),
  ("strided 1d", lambda: StridedDecoder(8, (6, 4), 0, channels=2), (2, 3), (16, 2)),
  ("strided 3d", lambda: StridedDecoder(4, (), 1, 3, 1), (2, 4, 4, 3), (4, 8, 8, 1)),
  ("vit", lambda: ViTDecoder(width=16, depth=2, heads=2, patch=4), (4, 2, 5), (16, 8, 3)),
  ("vit tanh", lambda: ViTDecoder(width=16, depth=1, heads=2, patch=4, hidden=24, head=6), (2, 2, 5), (8, 8, 3)),
  ("wave", lambda: WaveDecoder(ch=4, strides=(2, 3, 4), channels=2), (2, 6), (48, 2)),
  ("wave elu", lambda: WaveDecoder(ch=4, strides=(2, 4), activation="elu"), (8, 6), (64, 1)),
  (
    "equivariant",
    lambda: Equivariant(ConvDecoder(ch=8, mult=(1, 2), blocks=1, mid_attention=False)),
    (4, 4, 2),
    (8, 8, 3),
  ),
  ("gained", lambda: Gained(WaveDecoder(ch=4, strides=(2, 4))), (8, 6), (64, 1)),
  (
    "logit-laplace",
    lambda: LogitLaplaceDecoder(ConvDecoder(ch=8, mult=(1, 2), blocks=1, channels=6, mid_attention=False)),
    (4, 2, 2),
    (8, 4, 3),
  ),
  ("flow", lambda: FlowDecoder(UNet(8, mult=(1, 2), blocks=1, out=1), stride=4, channels=1), (2, 4, 3), (8, 16, 1)),
  (
    "flow augmented",
    lambda: FlowDecoder(UNet(8, mult=(1, 2), blocks=1, out=1), stride=2, channels=1, augment=0.5, level=0.1),
    (4, 4, 3),
    (8, 8, 1),
  ),
  ("diffwave", lambda: vocoder(DiffWave(8, 3, 2, mels=6, factors=(2, 3), out=1), 6), (8, 6), (48, 1)),
  ("wavegrad", lambda: vocoder(WaveGrad(8, (3, 2), (8, 6), (4, 6), ((1, 2, 1, 2),) * 2, out=1), 6), (8, 6), (48, 1)),
]


# -- decoders of tokens: (name, make, latent shape [*s,D], signal shape [*S], vocab)
TOKEN_DECODERS = [
  ("categorical", lambda: Categorical(ConvDecoder(ch=8, mult=(1, 2), blocks=1, channels=20)), (8, 3), (16,), 20),
]
