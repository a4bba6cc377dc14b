"""Members of `latents/backbones`."""

from latents.backbones import DiT, UNet

# -- backbones: (name, make, input shape [*s,D])
BACKBONES = [
  ("dit", lambda: DiT(2, 16, 2, classes=3), (4, 4, 3)),
  ("dit-tokens", lambda: DiT(1, 16, 2, patch=1, classes=3, position="none", remat="block"), (6, 5)),
  ("dit-video", lambda: DiT(1, 12, 2), (2, 4, 4, 3)),
  ("unet", lambda: UNet(8, (1, 2), 1, attention=(1,), classes=3), (4, 4, 3)),
  ("unet-adm", lambda: UNet(16, (1, 2), 1, attention=(1,), head=8, resample="block", classes=3), (4, 4, 3)),
  (
    "unet-class-tokens",
    lambda: UNet(16, (1, 1), 1, (0,), 2, False, 3, depth=1, context=6, resample="both", groups=4),
    (4, 6, 3),
  ),
  ("unet-spatial", lambda: UNet(8, (1,), 1, depth=2, linear=True, stem=12), (6, 2)),
  ("unet-add", lambda: UNet(64, (1, 1), 1, film=False), (4, 4, 2)),
]
