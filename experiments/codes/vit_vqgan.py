"""ViT-VQGAN: transformers on patches, a narrow codebook of unit vectors. Yu et al. 2021, arXiv:2110.04627.

Encoder and decoder are ViTs with a tanh layer before their last one. A patch's features are led down to a few channels
before the lookup ("factorised" codes) and have length 1, as the codes have: both raise the share of the codebook that
is used. Losses: codebook, L2, logit-Laplace, LPIPS and StyleGAN's judge, with one set of weights for all data.

    latents run experiments/codes/vit_vqgan.py --scale tiny
    latents run experiments/codes/vit_vqgan.py --scale paper --size large

tiny: 32 px digits in patches of 4, 64 codes of 4 channels, the judge from step 600 of 750; the codes' term weighs a
tenth, L2 four times and logit-Laplace a fifth of the paper's (with those and 8 channels the run ended with 5 codes in
use). paper: ImageNet at 256 px in patches of 8, 1,024 codes of 8,192 and 32 channels; base, small and large networks on
both sides; the prior is LlamaGen's transformer of VIM-Large's 36 layers of 2,048.

Paper: rFID 1.28 (small encoder, large decoder), 1.55 (base, both); FID 4.17 (VIM-Large), 3.04 with rejection
Shown: 62 of 64 codes in use; pictures grainy (2.4 times the high frequencies); samples are digits of their class
"""

from typing import Any, Literal

from experiments import imagenet
from latents.autoencoders import Autoencoder
from latents.backbones import Transformer
from latents.bottlenecks import VQ
from latents.data import Digits, Source, Tfds
from latents.declare import Evaluation, Experiment, Stage1, Stage2
from latents.decoders import LogitLaplaceDecoder, ViTDecoder
from latents.discriminators import StyleGAN
from latents.encoders import ViTEncoder
from latents.losses import L2, Adversarial, LogitLaplace, Loss, LPIPSLoss, Weight, conversions
from latents.optim import Adam
from latents.priors import AutoregressivePrior

Size = Literal["small", "base", "large"]
SIZES = {"small": (512, 8, 8), "base": (768, 12, 12), "large": (1280, 32, 16)}  # width, depth, heads of 64 numbers


def experiment(
  scale: Literal["tiny", "paper"] = "tiny",
  size: Size = "base",
  vocab: int | None = None,
  dim: int | None = None,
  data_dir: str | None = None,
) -> Experiment:
  """size: of both networks (paper). vocab, dim: codes, and channels of one. data_dir: where TFDS sets lie (paper)."""
  tiny = scale == "tiny"
  data: Source = Digits(size=32) if tiny else Tfds("imagenet2012", data_dir, 256, labels=1000)
  vocab, dim = vocab or (64 if tiny else 8192), dim or (4 if tiny else 32)
  model = autoencoder(size, VQ(vocab=vocab, dim=dim, normalise="codes"), None if tiny else 8, data.shape[-1])
  adam = Adam(lr=1e-3 if tiny else 1e-4, betas=(0.9, 0.99), decay=1e-4, warmup=50 if tiny else 50_000,
              schedule="cosine", final=0.5, clip=1.0 if tiny else 0.0)  # fmt: skip
  wide: dict[str, Any] = {"width": 128, "depth": 4, "heads": 4} if tiny else {"width": 2048, "depth": 36, "heads": 32}
  wide |= {"length": 64} if tiny else {"length": 1024, "dropout": 0.1, "remat": "block", "dtype": "bfloat16"}
  made = Experiment(
    name="vit_vqgan",
    stage1=Stage1(
      data=data, model=model, losses=losses(tiny) | {"vq": Weight(0.1 if tiny else 1.0)}, optimizer=adam,
      steps=750 if tiny else 500_000, batch=16 if tiny else 256, ema=0.98 if tiny else 0.9999,
    ),
    stage2=Stage2(
      data=data,
      prior=AutoregressivePrior(
        backbone=Transformer(vocab=vocab, classes=data.classes, **wide), guidance=2.0, top_p=0.95 if tiny else 1.0
      ),
      optimizer=Adam(lr=1e-3 if tiny else 4.5e-4, betas=(0.9, 0.95), decay=0.05, warmup=50 if tiny else 5000,
                     schedule="cosine", clip=1.0),
      steps=650 if tiny else 450_000, batch=16 if tiny else 1024, ema=0.99 if tiny else 0.9999, cache=True,
    ),
    evaluation=Evaluation(images=297, samples=500, classifier=True, features=False),
  )  # fmt: skip
  return made if tiny else imagenet(made)


def autoencoder(size: Size, code: Any, patch: int | None, channels: int) -> Autoencoder:
  """Both networks on either side of `code`, and the distribution over pixels. patch: None = those of the tiny scale."""
  width, depth, heads = SIZES[size] if patch else (96, 3, 4)
  net: dict[str, Any] = {"width": width, "depth": depth, "heads": heads, "patch": patch or 4, "hidden": 4 * width}
  net |= {"head": 64, "remat": True, "dtype": "bfloat16"} if patch else {}
  return Autoencoder(
    encoder=ViTEncoder(out=width, **net),
    bottleneck=code,
    decoder=LogitLaplaceDecoder(ViTDecoder(channels=2 * channels, **net)),
  )


def losses(tiny: bool, first: int = 600) -> dict[str, Loss]:
  """Those of pictures. The paper's pictures are in [0,1], where squares are a quarter of ours. first: the step from
  which the tiny scale is judged."""
  judge = Adversarial(
    discriminator=StyleGAN(base=256, most=32) if tiny else StyleGAN(), objective="nonsaturating", adaptive=False,
    weight=0.01 if tiny else 0.1, start=first if tiny else 0, lead=50 if tiny else 0, r1=conversions.penalty(10.0),
    optimizer=Adam(lr=2e-4 if tiny else 1e-4, betas=(0.0, 0.99) if tiny else (0.9, 0.99)),
  )  # fmt: skip
  found: dict[str, Loss] = {"l2": L2(weight=1.0 if tiny else 0.25), "gan": judge}
  found["logit_laplace"] = LogitLaplace(weight=0.02 if tiny else 0.1)
  return found if tiny else {**found, "lpips": LPIPSLoss(weight=0.1, net="vgg")}
