"""KL-f8 autoencoder and latent diffusion transformer. Rombach et al. 2022, arXiv:2112.10752, Table 8 (f8, KL).

Stage 1: L1 + LPIPS + PatchGAN + KL. The paper sums over the N = 256 * 256 * 3 numbers of a picture and divides by the
batch, here all terms are means, N times smaller. So its KL weight 1e-6 is 1e-6 / TSR = 2.1e-8 (catalogued in `KL`), the
clamp 1e4 of the adaptive weight, a ratio to the gradient of that sum, is 1e4 / N = 0.051, and Adam's epsilon 1e-8 is
1e-8 / N. Its README states rFID 0.90 and PSNR 24.19 dB on ImageNet val for f8 (OpenImages training, 256 px crops);
83,653,863 parameters. --factor takes f4c3 (55,312,063 parameters; rFID 0.27, PSNR 27.53), f16c16 (0.87, 24.08) or
f32c64 (2.04, 22.27) in its place.
Stage 2: DiT-XL/2 (Peebles & Xie 2022, arXiv:2212.09748) by flow matching (SiT, Ma et al. 2024,
arXiv:2401.08740: FID 17.2 at 400k steps without guidance, 8.3 at 7M, 2.06 with guidance 1.5).

    latents run experiments/images/ldm_kl.py --scale tiny --data-dir ../shared/data
    latents run experiments/images/ldm_kl.py --scale paper --data-dir DIR --stage1.losses.lpips.path vgg.pth

Data: your own, --data folder:PICTURES; ours: 20 classes of Tiny ImageNet by `latents data prepare DIR tiny_imagenet20`

tiny: 64 px photographs, f4 c8, the first stages of EfficientNet-Lite0 in place of VGG,
the GAN on for the last 200 of 650 steps, and a small prior: the same code on 2 CPU cores. paper: learning
rate 4.5e-6 x batch; the discriminator starts at 50,001; the number of steps is ours, the paper gives none
for f8.

Paper: rFID 0.90, PSNR 24.19 dB (README, f8); FID 8.3 without, 2.06 with guidance (SiT-XL).
Shown: blurred, reds weak; samples are colour textures, not objects; at paper scale 83,653,863 parameters.
"""

from typing import Literal

from experiments import imagenet
from latents.autoencoders import Autoencoder
from latents.backbones import DiT, dit_xl
from latents.bottlenecks import KL
from latents.data import Source, Tfds, source
from latents.declare import Evaluation, Experiment, Stage1, Stage2
from latents.decoders import ConvDecoder
from latents.discriminators import PatchGAN
from latents.encoders import ConvEncoder
from latents.losses import L1, Adversarial, LPIPSLoss, Perceptual, Weight
from latents.optim import Adam
from latents.priors import FlowPrior

NUMBERS = 256 * 256 * 3  # of a picture at paper scale: what LDM sums over
# f -> (mult, levels with attention, channels of the latent), as LDM's released configurations
SIZES = {
  4: ((1, 2, 4), (), 3),
  8: ((1, 2, 4, 4), (), 4),
  16: ((1, 1, 2, 2, 4), (4,), 16),
  32: ((1, 1, 2, 2, 4, 4), (4, 5), 64),
}


def experiment(
  scale: Literal["tiny", "paper"] = "tiny",
  data: str | None = None,
  data_dir: str | None = None,
  kl: float | None = None,
  size: int | tuple[int, int] | None = None,
  channels: Literal[1, 3] = 3,
  factor: Literal[4, 8, 16, 32] | None = None,
) -> Experiment:
  """data: tfds:NAME or folder:PATH. data_dir: where TFDS sets lie. kl: weight of the mean KL. size: pixels a side, or
  height and width. channels: 1 = grey. factor: f, 4 at the tiny scale and 8 at the paper's; channels of the latent grow
  with it as LDM's do."""
  if scale == "tiny":
    name, side, labels, make, f = "tiny_imagenet20", 64, 20, tiny, 4
  else:
    name, side, labels, make, f = "imagenet2012", 256, 1000, paper, 8
  if data:
    images = source(data, size=size or side, channels=channels, data_dir=data_dir)
  else:
    images = Tfds(name, data_dir, size or side, channels, labels=labels)
  return make(images, kl, factor or f)


def paper(images: Source, kl: float | None, factor: int = 8) -> Experiment:
  mult, attention, dim = SIZES[factor]
  batch = 96
  rate = 4.5e-6 * batch
  discriminator = Adversarial(
    weight=0.5, start=50_001, ramp=1, lead=0, clamp=1e4 / NUMBERS, optimizer=Adam(lr=rate, betas=(0.5, 0.9))
  )
  made = Experiment(
    name="ldm_kl",
    stage1=Stage1(
      data=images,
      model=Autoencoder(
        encoder=ConvEncoder(ch=128, mult=mult, blocks=2, out=2 * dim, attention=attention, dtype="bfloat16"),
        bottleneck=KL(dim=dim),
        decoder=ConvDecoder(
          ch=128, mult=mult, blocks=2, channels=images.shape[-1], attention=attention, dtype="bfloat16"
        ),
      ),
      losses={
        "l1": L1(),
        "lpips": LPIPSLoss(weight=1.0, net="vgg"),
        "kl": Weight(1e-6 * ((256 // factor) ** 2 * dim) / NUMBERS if kl is None else kl),
        "gan": discriminator,
      },
      optimizer=Adam(lr=rate, betas=(0.5, 0.9), eps=1e-8 / NUMBERS),
      steps=250_000,
      batch=batch,
      ema=0.9999,
    ),
    stage2=Stage2(
      data=images,
      prior=FlowPrior(
        backbone=dit_xl(max(16 // factor, 1), classes=images.classes, dtype="bfloat16"),
        guidance=1.5 if images.classes else 1.0,
      ),
      optimizer=Adam(lr=1e-4),
      steps=400_000,
      batch=256,
      ema=0.9999,
      cache=True,
    ),
  )
  return imagenet(made)


def tiny(images: Source, kl: float | None, factor: int = 4) -> Experiment:
  mult, dim = (1, 2, 2, 2, 2, 2)[: factor.bit_length()], 8 * (factor // 4) ** 2  # as many numbers whatever the factor
  discriminator = Adversarial(
    discriminator=PatchGAN(ch=16, layers=2),
    weight=0.1,
    start=450,
    ramp=50,
    lead=50,
    clamp=10.0,
    optimizer=Adam(lr=2e-4, betas=(0.5, 0.9)),
  )
  return Experiment(
    name="ldm_kl",
    stage1=Stage1(
      data=images,
      model=Autoencoder(
        encoder=ConvEncoder(ch=16, mult=mult, blocks=1, out=2 * dim, mid_attention=False, zero=True),
        bottleneck=KL(dim=dim, spread=0.1),
        decoder=ConvDecoder(ch=16, mult=mult, blocks=1, channels=images.shape[-1], mid_attention=False, zero=True),
      ),
      losses={
        "l1": L1(),
        "perceptual": Perceptual(weight=0.05, layers=(0, 1, 2)),
        "kl": Weight(1e-6 if kl is None else kl),
        "gan": discriminator,
      },
      optimizer=Adam(lr=7e-4, betas=(0.9, 0.99), warmup=20, schedule="cosine", final=0.05, clip=1.0),
      steps=650,
      batch=4,
      ema=0.98,
    ),
    stage2=Stage2(
      data=images,
      prior=FlowPrior(
        backbone=DiT(depth=6, width=128, heads=4, patch=2 if factor == 4 else 1, classes=images.classes),
        guidance=3.0 if images.classes else 1.0,
      ),
      optimizer=Adam(lr=1e-3, betas=(0.9, 0.95), warmup=50, schedule="cosine", clip=1.0),
      steps=600,
      batch=16,
      ema=0.99,
      cache=True,
    ),
    evaluation=Evaluation(images=200, samples=200, batch=50),
  )
