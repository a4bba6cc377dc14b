"""A flow decoder trained by one L2 loss. DiTo: Chen, Girdhar, Wang, Rambhatla, Misra 2025, arXiv:2501.18593.

No perceptual loss, no GAN, no KL: the decoder is a U-Net that learns the velocity from noise to the image
given the latent, and the latent is layer-normalised as a whole. Stage 1 is judged at 2 and at 20 steps.
The paper's XL matches LPIPS + GAN tokenizers on ImageNet-256 (f8c4, 50 Euler steps) and puts DiT-XL/2 on
its latents.

    latents run experiments/decoders/dito.py --scale tiny

tiny: f4 c4 latents of 32 px shapes, a U-Net of 16 channels as decoder; about five minutes of one CPU core. For clean
pictures: `--stage1.steps 2000 --stage2.steps 4000`, 18 minutes.

Paper: matches LPIPS + GAN tokenizers at XL.
Shown: 2 steps smooth, 20 with the texture's grain; samples have an object on a texture, outlines ragged.
"""

from typing import Literal

from experiments import imagenet
from latents.autoencoders import Autoencoder
from latents.backbones import DiT, UNet, dit_xl
from latents.bottlenecks import LayerNormLatent
from latents.data import Shapes, Source, Tfds
from latents.declare import Evaluation, Experiment, Stage1, Stage2
from latents.decoders import FlowDecoder
from latents.diffusion import Euler
from latents.encoders import ConvEncoder
from latents.losses import Weight
from latents.optim import Adam
from latents.priors import FlowPrior


def experiment(scale: Literal["tiny", "paper"] = "tiny", data_dir: str | None = None) -> Experiment:
  tiny = scale == "tiny"
  data: Source = Shapes(size=32, count=3000, test=300) if tiny else Tfds("imagenet2012", data_dir, 256, labels=1000)
  dtype = "float32" if tiny else "bfloat16"
  if tiny:
    encoder = ConvEncoder(ch=16, mult=(1, 2, 2), blocks=1, out=4, mid_attention=False, zero=True)
    unet = UNet(ch=16, mult=(1, 2, 3), blocks=1, out=3)
    backbone = DiT(depth=6, width=128, heads=4, patch=2, classes=data.classes)
  else:
    encoder = ConvEncoder(ch=128, mult=(1, 2, 4, 4), blocks=2, out=4, dtype=dtype)
    unet = UNet(ch=64, mult=(5, 10, 16), blocks=3, out=3, dtype=dtype)
    backbone = dit_xl(2, classes=data.classes, dtype=dtype)
  made = Experiment(
    name="dito",
    stage1=Stage1(
      data=data,
      model=Autoencoder(
        encoder=encoder,
        bottleneck=LayerNormLatent(),
        decoder=FlowDecoder(backbone=unet, stride=encoder.stride, sampler=Euler(20 if tiny else 50)),
      ),
      losses={"flow": Weight(1.0)},
      optimizer=Adam(lr=7e-4 if tiny else 1e-4, warmup=50, schedule="cosine" if tiny else "constant", clip=1.0),
      steps=700 if tiny else 400_000,
      batch=8 if tiny else 256,
      ema=0.99 if tiny else 0.9999,
    ),
    stage2=Stage2(
      data=data,
      prior=FlowPrior(backbone=backbone, guidance=2.0),
      optimizer=Adam(lr=1e-3 if tiny else 1e-4, betas=(0.9, 0.95), warmup=50, clip=1.0),
      steps=600 if tiny else 400_000,
      batch=32 if tiny else 256,
      ema=0.995 if tiny else 0.9999,
      cache=True,
    ),
    evaluation=Evaluation(images=100, samples=96, batch=50),
  )
  return made if tiny else imagenet(made)
