"""Members of `latents/encoders`."""

from latents.encoders import (
  ConvEncoder,
  DCEncoder,
  Downsample,
  DVAEEncoder,
  Embedded,
  Gain,
  IdentityEncoder,
  MelEncoder,
  QueryEncoder,
  StridedEncoder,
  ViTEncoder,
  WaveEncoder,
)

# -- encoders: (name, make, signal shape [*S,C])
ENCODERS = [
  ("conv", lambda: ConvEncoder(ch=8, mult=(1, 2, 2), blocks=1, out=4, attention=(1,)), (16, 8, 3)),
  ("conv remat", lambda: ConvEncoder(ch=8, mult=(1, 2), blocks=1, out=4, remat=True, mid_attention=False), (8, 8, 1)),
  ("conv of others", lambda: ConvEncoder(ch=8, mult=(2, 3), blocks=1, out=4, groups=16, least=1, stem=16), (8, 8, 3)),
  ("conv 1d", lambda: ConvEncoder(ch=8, mult=(1, 2), blocks=1, out=4, project=3), (16, 2)),
  ("conv 3d", lambda: ConvEncoder(ch=8, mult=(1, 2), blocks=1, out=4), (4, 8, 8, 1)),
  ("dc", lambda: DCEncoder((4, 8, 16), (0, 1, 2), out=8, attention=(2,), scales=(3,), head=4), (16, 8, 3)),
  ("dc strided", lambda: DCEncoder((8, 8), (1, 1), 4, (), strided=True, shortcut=False, remat=True), (8, 8, 1)),
  ("dc 1d", lambda: DCEncoder((4, 8), (1, 1), 4, (1,), head=4, shortcut_out=False), (16, 2)),
  ("dvae", lambda: DVAEEncoder(ch=8, mult=(1, 2, 3), blocks=1, out=6), (16, 8, 3)),
  ("dvae 1d", lambda: DVAEEncoder(ch=4, mult=(1, 2), out=6), (16, 1)),
  ("downsample", lambda: Downsample(factor=2), (8, 8, 3)),
  ("identity", lambda: IdentityEncoder(), (8, 8, 3)),
  ("mel", lambda: MelEncoder(rate=8000, hop=8, window=32, bands=6), (64, 2)),
  ("query", lambda: QueryEncoder(width=16, depth=2, heads=2, patch=4, tokens=6, out=5), (16, 8, 3)),
  ("query remat", lambda: QueryEncoder(width=16, depth=2, heads=2, patch=4, tokens=6, out=5, remat=True), (16, 1)),
  ("strided", lambda: StridedEncoder(widths=(8, 6), blocks=1, units=5), (16, 8, 3)),
  ("strided one", lambda: StridedEncoder((4,), hidden=6, units=3), (8, 8, 1)),
  ("strided sonnet 3d", lambda: StridedEncoder((4, 6), hidden=6, units=3, relu=True), (4, 8, 8, 1)),
  ("strided 1d", lambda: StridedEncoder((4, 4, 6), blocks=0), (16, 2)),
  ("vit", lambda: ViTEncoder(width=16, depth=2, heads=2, patch=4, out=5), (16, 8, 3)),
  ("vit tanh", lambda: ViTEncoder(width=16, depth=1, heads=2, patch=4, out=5, hidden=24, head=6), (8, 8, 3)),
  ("wave", lambda: WaveEncoder(ch=4, strides=(2, 3, 4), out=6), (48, 2)),
  ("wave elu", lambda: WaveEncoder(ch=4, strides=(2, 4), out=6, activation="elu"), (64, 1)),
  ("gain", lambda: Gain(WaveEncoder(ch=4, strides=(2, 4), out=6)), (64, 2)),
]


# -- encoders of tokens: (name, make, signal shape [*S])
TOKEN_ENCODERS = [
  ("embedded", lambda: Embedded(ConvEncoder(ch=8, mult=(1, 2), blocks=1, out=4), vocab=20, width=6), (16,)),
]
