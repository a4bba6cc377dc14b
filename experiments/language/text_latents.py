"""Text as a few continuous latents, and diffusion in them. LD4LG: Lovelace et al. 2023, arXiv:2212.09462.

LD4LG compresses what a frozen BART encodes of up to 64 word pieces into 32 latents of 64 numbers with a Perceiver
resampler, reconstructs by BART's autoregressive decoder, and learns a diffusion model of 12 layers, width 768, in them.
Optimus (Li et al. 2020, arXiv:2004.04092) has one vector of a VAE in place of the sequence. Here nothing is pretrained:
bytes are embedded, convolutions over time make a KL latent of every f bytes, the decoder gives all bytes at once, each
independent of the others given the latent, and a flow prior learns the sequence of latents. The papers' scores (MAUVE,
perplexity under GPT-2) need networks that no package here carries. Other than LD4LG: no BART on either side, bytes in
place of word pieces, convolutions in place of the resampler, no self-conditioning, a velocity in place of x_0.

    latents run experiments/language/text_latents.py --scale tiny

tiny: windows of 64 bytes of Python's own language reference (`topics`), 16 latents of 8 numbers. paper: 256 bytes
(about 64 word pieces) of --data text:PATH as LD4LG's 32 latents of 64 numbers, and its width and depth of prior.

Paper: MAUVE and perplexity, which need networks that no package carries
Shown: samples have the shapes of words, markup and tables, and no sense
"""

from typing import Literal

from latents.autoencoders import Autoencoder
from latents.backbones import DiT
from latents.bottlenecks import KL
from latents.data import source
from latents.declare import Evaluation, Experiment, Stage1, Stage2
from latents.decoders import Categorical, ConvDecoder
from latents.encoders import ConvEncoder, Embedded
from latents.losses import CrossEntropy, Weight
from latents.optim import Adam
from latents.priors import FlowPrior


def experiment(scale: Literal["tiny", "paper"] = "tiny", data: str = "topics", kl: float = 1e-4) -> Experiment:
  """data: topics or text:PATH. kl: weight of the mean KL."""
  tiny = scale == "tiny"
  length, dim = (64, 8) if tiny else (256, 64)
  text = source(data, length=length)
  dtype = "float32" if tiny else "bfloat16"
  core = {"ch": 64, "mult": (1, 2, 2), "blocks": 1, "zero": True} if tiny else {"ch": 256, "mult": (1, 2, 2, 4)}
  core |= {"mid_attention": not tiny, "dtype": dtype}
  return Experiment(
    name="text_latents",
    stage1=Stage1(
      data=text,
      model=Autoencoder(
        encoder=Embedded(ConvEncoder(out=2 * dim, **core), width=64 if tiny else 256),
        bottleneck=KL(dim=dim),
        decoder=Categorical(ConvDecoder(channels=256, **core)),
      ),
      losses={"nll": CrossEntropy(), "kl": Weight(kl)},
      optimizer=Adam(lr=2e-3 if tiny else 1e-4, betas=(0.9, 0.98), warmup=50, schedule="cosine", clip=1.0),
      steps=2400 if tiny else 250_000,
      batch=32 if tiny else 128,
      ema=0.99 if tiny else 0.9999,
    ),
    stage2=Stage2(
      data=text,
      prior=FlowPrior(
        DiT(*((4, 128, 4) if tiny else (12, 768, 12)), patch=1, dtype=dtype),
      ),
      optimizer=Adam(lr=1e-3 if tiny else 2e-4, betas=(0.9, 0.95), warmup=50, schedule="cosine", clip=1.0),
      steps=4000 if tiny else 250_000,
      batch=32 if tiny else 128,
      ema=0.995 if tiny else 0.9999,
    ),
    evaluation=Evaluation(images=300, samples=100, batch=100, features=False),
  )
