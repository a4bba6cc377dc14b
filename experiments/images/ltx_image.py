"""The reconstruction GAN and the wavelet loss of LTX-Video, on pictures. HaCohen et al. 2025, arXiv:2501.00103.

A judge is shown the original and the reconstruction together and says which is which, in both orders, in place of
asking whether one picture looks real (section 2.2, "reconstruction GAN"); beside MSE and LPIPS an L1 between wavelet
coefficients ("video-DWT"; here of a picture, 4 bands). The authors' training code is not released and the weights of
the terms are not published: those here are ours, and knobs.

    latents run experiments/images/ltx_image.py --scale tiny --data-dir ../shared/data
    latents run experiments/images/ltx_image.py --scale paper --data-dir DIR --stage1.losses.lpips.path vgg.pth

tiny: network, data, prior and length of `ldm_kl`, so that the rows compare; the judge has a non-saturating objective
from step 450 of 650. paper: 32 pixels to a position and 128 channels, as LTX-Video (TSR 24 on pictures, 192 on clips of
8 frames), with LDM's f32 network; left out are its causal 3-D convolutions, one log-variance for all channels and the
decoder's noise level. Stage 2 is `ldm_kl`'s with a token a position.

Paper: no numbers on pictures (1:192, human preference on video)
Shown: blurred (7 % of the high frequencies); samples are colour textures, not objects
"""

import dataclasses
from typing import Literal

from experiments.images import ldm_kl
from latents.backbones import dit_xl
from latents.bottlenecks import KL
from latents.declare import Experiment
from latents.decoders import ConvDecoder
from latents.discriminators import PatchGAN
from latents.encoders import ConvEncoder
from latents.losses import L2, LPIPSLoss, PairAdversarial, Perceptual, Wavelet, Weight, conversions
from latents.optim import Adam

MULT, CHANNELS = (1, 1, 2, 2, 4, 4), 128


def experiment(
  scale: Literal["tiny", "paper"] = "tiny",
  data: str | None = None,
  data_dir: str | None = None,
  wavelet: float = 1.0,
  gan: float | None = None,
) -> Experiment:
  """data, data_dir: as of `ldm_kl`. wavelet, gan: weights of the two terms."""
  tiny = scale == "tiny"
  base = ldm_kl.experiment(scale, data=data, data_dir=data_dir)
  one, two = base.stage1, base.stage2
  assert two is not None
  judge = PairAdversarial(
    discriminator=PatchGAN(ch=16, layers=2, norm="group") if tiny else PatchGAN(norm="group"),
    objective="nonsaturating", weight=(0.1 if tiny else 0.5) if gan is None else gan,
    start=450 if tiny else 50_001, ramp=50 if tiny else 1, lead=50 if tiny else 0, clamp=10.0,
    optimizer=Adam(lr=2e-4 if tiny else 1e-4, betas=(0.5, 0.9)),
  )  # fmt: skip
  losses = {"l2": L2(), "wavelet": Wavelet(weight=wavelet), "gan": judge}
  if tiny:
    losses |= {"perceptual": Perceptual(weight=0.05, layers=(0, 1, 2)), "kl": Weight(1e-6)}
    return dataclasses.replace(base, name="ltx_image", stage1=dataclasses.replace(one, losses=losses))
  kl = conversions.of_sums(1e-6, 8 * 8 * CHANNELS, among=ldm_kl.NUMBERS)
  losses |= {"lpips": LPIPSLoss(net="vgg"), "kl": Weight(kl)}
  model = one.model.clone(
    encoder=ConvEncoder(ch=128, mult=MULT, attention=(4, 5), out=2 * CHANNELS, dtype="bfloat16"),
    bottleneck=KL(dim=CHANNELS),
    decoder=ConvDecoder(ch=128, mult=MULT, attention=(4, 5), dtype="bfloat16"),
  )
  adam = Adam(lr=1e-4, betas=(0.5, 0.9))
  prior = two.prior.clone(backbone=dit_xl(1, classes=two.data.classes, dtype="bfloat16"))
  return dataclasses.replace(
    base,
    name="ltx_image",
    stage1=dataclasses.replace(one, model=model, losses=losses, optimizer=adam),
    stage2=dataclasses.replace(two, prior=prior),
  )
