"""A VAE with one vector of independent numbers: the rate is chosen. beta-VAE: Higgins et al. 2017 (ICLR).

Objectives, by --objective: "beta", squared error / 2v + beta KL with v fixed; "capacity", gamma |KL - C(t)| in place of
beta KL (Burgess et al. 2018, arXiv:1804.03599); "sigma", v learned and beta 1, the evidence bound itself (Rybkin et al.
2020, arXiv:2006.13202). All terms here are means: an error over N_x numbers of the signal and a KL over N_z of the
latent, so beta is 2 v beta / TSR, and C is divided by N_z. A linear VAE keeps just the axes of the data whose variance
is above beta v (tests/test_beta_vae.py).

    latents run experiments/images/beta_vae.py
    latents run experiments/images/beta_vae.py --objective capacity

tiny: scikit-learn's digits at 16 px, 10 numbers. paper: 64 px pictures of one object (data `Shapes`, for dSprites) and
the paper's network sizes, 10 numbers, gamma 1000 and 25 nats over 100,000 steps; no paper has just this. The prior is
a flow on the vectors, where the paper samples N(0, 1).

Paper: factors of variation apart, no number that is measured here
Shown: 13 bits a picture keep zeros, fours and sixes; ones, fives and sevens melt into others, blurred
"""

from typing import Literal

from latents.autoencoders import Autoencoder
from latents.backbones import DiT
from latents.bottlenecks import KL
from latents.data import Digits, Shapes, Source
from latents.declare import Evaluation, Experiment, Stage1, Stage2
from latents.decoders import ConvDecoder
from latents.diffusion import Euler
from latents.encoders import ConvEncoder
from latents.losses import L2, Capacity, Likelihood, Loss, Weight
from latents.optim import Adam
from latents.priors import FlowPrior

NUMBERS = 10  # of the latent


def experiment(
  scale: Literal["tiny", "paper"] = "tiny",
  objective: Literal["beta", "capacity", "sigma"] = "beta",
  beta: float = 1.0,
  variance: float = 0.05,
) -> Experiment:
  """beta: of "beta" alone. variance: v of a number of the signal in [-1,1], of "beta" and "capacity"."""
  tiny = scale == "tiny"
  data: Source = Digits(size=16) if tiny else Shapes(size=64)
  size, channels = data.shape[0], data.shape[-1]
  tsr, steps = size * size * channels / NUMBERS, 1500 if tiny else 300_000
  terms: dict[str, dict[str, Loss]] = {
    "beta": {"l2": L2(), "kl": Weight(2 * variance * beta / tsr)},
    "capacity": {
      "l2": L2(),
      "kl": Capacity(weight=2 * variance * 1000 / tsr, capacity=25 / NUMBERS, rise=steps // 3),
    },
    "sigma": {"nll": Likelihood(), "kl": Weight(1 / tsr)},
  }
  mult = (1, 2, 2, 4, 4) if tiny else (1, 1, 2, 2, 4, 4, 4)  # down to one position
  ch = 16 if tiny else 32
  return Experiment(
    name="beta_vae",
    stage1=Stage1(
      data=data,
      model=Autoencoder(
        encoder=ConvEncoder(ch=ch, mult=mult, blocks=1, out=4 * NUMBERS, mid_attention=False),
        bottleneck=KL(dim=NUMBERS, spread=0.3),
        decoder=ConvDecoder(ch=ch, mult=mult, blocks=1, channels=channels, mid_attention=False),
      ),
      losses=terms[objective],
      optimizer=Adam(lr=1e-3 if tiny else 5e-4, warmup=50, schedule="cosine", final=0.05, clip=1.0),
      steps=steps,
      batch=32 if tiny else 64,
      ema=0.99 if tiny else 0.999,
    ),
    stage2=Stage2(
      data=data,
      prior=FlowPrior(
        backbone=DiT(depth=4, width=96, heads=4, patch=1, classes=data.classes), sampler=Euler(30), guidance=1.5
      ),
      optimizer=Adam(lr=1e-3, betas=(0.9, 0.95), warmup=50, schedule="cosine", clip=1.0),
      steps=1500 if tiny else 50_000,
      batch=64,
      ema=0.995,
      cache=True,
    ),
    evaluation=Evaluation(images=297, samples=500, classifier=tiny, features=False),
  )
