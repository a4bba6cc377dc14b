"""Members of `latents/backbones`."""

from latents.backbones import DiT, MPUNet, UNet

# -- backbones: (name, make, input shape [*s,D])
BACKBONES = [
  ("dit", lambda: DiT(2, 16, 2, classes=3), (4, 4, 3)),
  ("dit-tokens", lambda: DiT(1, 16, 2, patch=1, classes=3, position="none", remat="block"), (6, 5)),
  ("dit-video", lambda: DiT(1, 12, 2), (2, 4, 4, 3)),
  ("unet", lambda: UNet(8, (1, 2), 1, attention=(1,), classes=3), (4, 4, 3)),
  ("unet-add", lambda: UNet(64, (1, 1), 1, film=False), (4, 4, 2)),
  ("mp-unet", lambda: MPUNet(8, (1, 2), 1, attention=(1,), head=8, classes=3), (4, 4, 3)),
]
