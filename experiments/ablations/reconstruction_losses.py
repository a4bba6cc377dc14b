"""What each term of the recipe brings: a regression alone, with a perceptual term, and with a judge as well.

Dieleman, "Generative modelling in latent space" (2025), on the losses of stage 1: a regression on pixels makes blurred
pictures, since it averages over details that the latent cannot hold; a perceptual loss and a discriminator make the
decoder fill in plausible ones, at the price of distances between pixels (Blau and Michaeli 2018, arXiv:1711.06077: the
perception-distortion trade-off; the recipe is that of VQGAN, Esser et al. 2020, arXiv:2012.09841).

    TFDS_DATA_DIR=../shared/data latents ablate experiments/ablations/reconstruction_losses.py --scale tiny --seeds 3

tiny: photographs of 32 px, f4 c4 (TSR 12), 1,000 steps, no prior; EfficientNet-Lite0's first stages as the perceptual
net, a small PatchGAN from step 500; at most four minutes of one core a run. Columns: PSNR, SSIM, the kernel distance of
reconstructions on pooled EfficientNet-Lite0 features (of which the perceptual term has seen the first stages: it
favours that term), the energy that is kept by octaves. paper: `ldm_kl`'s stage 1 with L2, LPIPS and its adaptive GAN.
The smallest differences that count: 0.2 dB, 0.05 of the top octave's energy, nothing for the kernel but its sign.
"""

import dataclasses
from typing import Literal

from experiments.images import ldm_kl
from latents.ablations import Ablation, Against, Equal, Stepwise
from latents.autoencoders import Autoencoder
from latents.backbones import DiT
from latents.bottlenecks import KL
from latents.data import Tfds
from latents.declare import Evaluation, Experiment, Stage1, Stage2
from latents.decoders import ConvDecoder
from latents.discriminators import PatchGAN
from latents.encoders import ConvEncoder
from latents.evaluate import Bands, PairedKernel
from latents.losses import L2, Adversarial, Loss, Perceptual, Weight
from latents.optim import Adam
from latents.priors import FlowPrior

PSNR, SSIM = "reconstruction..psnr", "reconstruction..ssim"
KERNEL, TOP, HIGH = (f"reconstruction..{name}" for name in ("kernel2_efficientnet_lite0", "band_top", "band_0.25"))
ACCURACY, CLAMP = "judges.gan.accuracy", "judges.gan.adaptive_of_clamp"
CURVES = ("train/l2", "train/gan_adaptive", "train/real_accuracy", "train/fake_accuracy")
COLUMNS = (PSNR, SSIM, KERNEL, "reconstruction..band_0.125", HIGH, TOP, "latent.capacity_bits")
SAMPLES = ("samples.frechet_efficientnet_lite0", "samples.kernel_efficientnet_lite0")
STEPS = 1_000


def sweep(scale: Literal["tiny", "paper"] = "tiny") -> Ablation:
  order = ("l2", "perceptual", "adversarial")
  return Ablation(
    variants={name: variant(scale, order[: i + 1]) for i, name in enumerate(order)},
    varies=(f"stage1.losses.{'perceptual' if scale == 'tiny' else 'lpips'}", "stage1.losses.gan"),
    columns=COLUMNS,
    curves=CURVES,
    claims=(
      Stepwise(sentence="Each term brings reconstructions closer to photographs in a network's features.",
               order=order, column=KERNEL, direction="lower"),
      Against(sentence="A judge brings back the finest detail that a regression leaves out.", variant="adversarial",
              control="l2", column=TOP, direction="higher", least=0.05),
      Against(sentence="A perceptual loss alone does so, too.", variant="perceptual", control="l2", column=TOP,
              direction="higher", least=0.05),
      Against(sentence="The price are distances between pixels.", variant="adversarial", control="l2", column=PSNR,
              direction="lower", least=0.2),
      Equal(sentence="The judge itself costs less than 1.5 dB.", variant="adversarial", control="perceptual",
            column=PSNR, margin=1.5),
    ),
  )  # fmt: skip


def variant(scale: Literal["tiny", "paper"], terms: tuple[str, ...], judge: Adversarial | None = None) -> Experiment:
  """The base with "perceptual" and "adversarial" as far as `terms` have them. judge: in place of the usual one."""
  if scale == "paper":
    made = ldm_kl.experiment("paper")
    losses: dict[str, Loss] = {"l2": L2(), "kl": made.stage1.losses["kl"]}
    losses |= {"lpips": made.stage1.losses["lpips"]} if "perceptual" in terms else {}
    losses |= {"gan": judge or made.stage1.losses["gan"]} if "adversarial" in terms else {}
    one = dataclasses.replace(made.stage1, losses=losses)
    metrics = dataclasses.replace(made.evaluation, metrics=(Bands(), PairedKernel(side=256)))
    return dataclasses.replace(made, name="reconstruction_losses", stage1=one, stage2=None, evaluation=metrics)
  losses = {"l2": L2(), "kl": Weight(1e-6)}
  losses |= {"perceptual": Perceptual(weight=0.05, layers=(0, 1, 2), side=32)} if "perceptual" in terms else {}
  losses |= {"gan": judge or tiny_judge(start=STEPS // 2, lead=50, ramp=50)} if "adversarial" in terms else {}
  return Experiment(
    name="reconstruction_losses",
    stage1=Stage1(
      data=Tfds("tiny_imagenet20", None, 32, labels=20),
      model=Autoencoder(
        encoder=ConvEncoder(ch=16, mult=(1, 2, 2), blocks=1, out=8, mid_attention=False, zero=True),
        bottleneck=KL(dim=4, spread=0.1),
        decoder=ConvDecoder(ch=16, mult=(1, 2, 2), blocks=1, mid_attention=False, zero=True),
      ),
      losses=losses,
      optimizer=Adam(lr=7e-4, betas=(0.9, 0.99), warmup=20, clip=1.0),  # no decay: a late judge has as much to move
      steps=STEPS,
      batch=8,
      ema=0.98,
    ),
    stage2=None,
    evaluation=Evaluation(images=200, batch=50, metrics=(Bands(), PairedKernel(side=32))),
  )


def tiny_judge(start: int, lead: int = 0, ramp: int = 0) -> Adversarial:
  """The small PatchGAN of the tiny scale, which the decoder feels from `start` on."""
  return Adversarial(
    discriminator=PatchGAN(ch=16, layers=2), weight=0.2, clamp=10.0, optimizer=Adam(lr=2e-4, betas=(0.5, 0.9)),
    start=start, lead=lead, ramp=ramp,
  )  # fmt: skip


def with_prior(made: Experiment) -> Experiment:
  """A tiny experiment with a small prior on its latents, which is measured by 200 samples."""
  two = Stage2(
    data=made.stage1.data,
    prior=FlowPrior(backbone=DiT(depth=4, width=96, heads=4, patch=1, classes=20), guidance=2.0),
    optimizer=Adam(lr=1e-3, betas=(0.9, 0.95), warmup=50, schedule="cosine", clip=1.0),
    steps=300,
    batch=16,
    ema=0.98,
    cache=True,
  )
  return dataclasses.replace(made, stage2=two, evaluation=dataclasses.replace(made.evaluation, samples=200))
