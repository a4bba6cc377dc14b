"""Discriminators: x [B,*S,C] in [-1,1] -> logits [B,...], larger where x looks real.

The contract: a linen module, `__call__(x, *, train) -> logits` in float32; no state besides parameters.
"""

from latents.discriminators.patchgan import PatchGAN

__all__ = ["PatchGAN"]
