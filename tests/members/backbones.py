"""Members of `latents/backbones`."""

from latents.backbones import DiffWave, DiT, MPUNet, ResidualMLP, UNet, UNetTransformer, UViT

# -- backbones: (name, make, input shape [*s,D])
BACKBONES = [
  ("dit", lambda: DiT(2, 16, 2, classes=3), (4, 4, 3)),
  ("dit-tokens", lambda: DiT(1, 16, 2, patch=1, classes=3, position="none", remat="block"), (6, 5)),
  ("dit-video", lambda: DiT(1, 12, 2), (2, 4, 4, 3)),
  ("dit-lightning", lambda: DiT(2, 16, 2, classes=3, norm="rms", mlp="swiglu", rope=True, qk_norm=True), (4, 4, 3)),
  (
    "dit-jit",
    lambda: DiT(
      4,
      16,
      2,
      classes=3,
      norm="rms",
      mlp="swiglu",
      rope=True,
      bottleneck=5,
      context=3,
      context_from=1,
      dropout=0.2,
      remat="block",
    ),
    (4, 4, 3),
  ),
  ("dit-line", lambda: DiT(1, 16, 2, patch=1, position="none", rope=True), (6, 5)),
  ("dit-video-rope", lambda: DiT(1, 24, 2, rope=True), (2, 4, 4, 3)),
  ("uvit", lambda: UViT(3, 16, 2, classes=3, remat="block"), (4, 4, 3)),
  ("uvit-line", lambda: UViT(5, 16, 2, patch=1, conv=False), (6, 5)),
  ("mlp", lambda: ResidualMLP(2, 16, classes=3), (5,)),
  ("mlp-token", lambda: ResidualMLP(1, 16), (1, 5)),
  ("unet", lambda: UNet(8, (1, 2), 1, attention=(1,), classes=3), (4, 4, 3)),
  ("unet-adm", lambda: UNet(16, (1, 2), 1, attention=(1,), head=8, resample="block", classes=3), (4, 4, 3)),
  (
    "unet-class-tokens",
    lambda: UNet(16, (1, 1), 1, (0,), 2, False, 3, depth=1, context=6, resample="both", groups=4),
    (4, 6, 3),
  ),
  ("unet-spatial", lambda: UNet(8, (1,), 1, depth=2, linear=True, stem=12), (6, 2)),
  ("unet-add", lambda: UNet(64, (1, 1), 1, film=False), (4, 4, 2)),
  ("diffwave", lambda: DiffWave(8, 3, 2, classes=3), (24, 2)),
  ("mp-unet", lambda: MPUNet(8, (1, 2), 1, attention=(1,), head=8, classes=3), (4, 4, 3)),
  ("unet-transformer", lambda: UNetTransformer(8, (1, 2), 1, depth=1, width=16, heads=2, classes=3), (8, 4, 3)),
]
