"""Images as a sequence of tokens that decodes from any prefix. TiTok and One-D-Piece.

TiTok: Yu, Weber, Deng, Shen, Cremers, Chen 2024, arXiv:2406.07550: learned queries read the patches, and
what they hold is quantised; S-128 (128 tokens of 4096 codes): rFID 1.71, gFID 1.97 with MaskGIT, after
two-stage training on a VQGAN's codes. Here stage 1 is trained on pixels at once, with
an EMA codebook on plain latents (the paper's are l2-normalised). Prefixes: One-D-Piece (Miwa et al. 2025,
arXiv:2501.10064), tail tokens dropped at random in training. The prior is autoregressive: it too may stop
anywhere.

    latents run experiments/tokens1d/titok.py --scale tiny

tiny: 32 px digits as 16 tokens of 256 codes; scored at 4, 8 and 16 tokens; about nine minutes of two CPU cores.

Paper: rFID 1.71, gFID 1.97 (S-128).
Shown: 21.3 dB from the first 8 of 16 tokens, 19.1 dB from 4; 255 of 256 codes in use.
"""

from typing import Literal

from experiments import imagenet
from latents.autoencoders import Autoencoder
from latents.backbones import Transformer
from latents.bottlenecks import EMAVQ, NestedDropout
from latents.data import Digits, Source, Tfds
from latents.declare import Evaluation, Experiment, Stage1, Stage2
from latents.decoders import QueryDecoder
from latents.encoders import QueryEncoder
from latents.losses import L2, LPIPSLoss, Weight
from latents.optim import Adam
from latents.priors import AutoregressivePrior


def experiment(
  scale: Literal["tiny", "paper"] = "tiny", tokens: int | None = None, data_dir: str | None = None
) -> Experiment:
  """tokens: length of the sequence."""
  tiny = scale == "tiny"
  tokens = tokens or (16 if tiny else 128)
  data: Source = Digits(size=32) if tiny else Tfds("imagenet2012", data_dir, 256, labels=1000)
  width, depth, heads, patch = (96, 3, 4, 8) if tiny else (512, 8, 8, 16)
  vocab, dim = (256, 8) if tiny else (4096, 12)
  dtype = "float32" if tiny else "bfloat16"
  codebook = EMAVQ(vocab=vocab, dim=dim, decay=0.95 if tiny else 0.99, restart=0.1 if tiny else 0.03, kmeans=10)
  grid = (data.shape[0] // patch, data.shape[1] // patch)
  losses = {"l2": L2(), "commit": Weight(0.25)}
  made = Experiment(
    name="titok",
    stage1=Stage1(
      data=data,
      model=Autoencoder(
        encoder=QueryEncoder(tokens=tokens, width=width, depth=depth, heads=heads, patch=patch, out=dim, dtype=dtype),
        bottleneck=NestedDropout(codebook, minimum=1),
        decoder=QueryDecoder(
          grid=grid, width=width, depth=depth, heads=heads, patch=patch, channels=data.shape[-1], dtype=dtype
        ),
      ),
      losses=losses if tiny else {**losses, "lpips": LPIPSLoss(weight=0.1, net="vgg")},
      optimizer=Adam(
        lr=1e-3 if tiny else 1e-4,
        betas=(0.9, 0.99),
        decay=1e-4,
        warmup=50,
        schedule="cosine",
        clip=1.0,
        decays="all" if tiny else "kernels",
      ),
      steps=2000 if tiny else 1_000_000,
      batch=32 if tiny else 256,
      ema=0.98 if tiny else 0.999,
    ),
    stage2=Stage2(
      data=data,
      prior=AutoregressivePrior(
        backbone=Transformer(
          vocab=vocab,
          width=128 if tiny else 768,
          depth=4 if tiny else 12,
          heads=4 if tiny else 12,
          length=tokens,
          classes=data.classes,
          dtype=dtype,
        ),
        guidance=1.5,
        top_p=0.95 if tiny else 1.0,
      ),
      optimizer=Adam(lr=1e-3 if tiny else 1e-4, betas=(0.9, 0.95), warmup=50, schedule="cosine", clip=1.0),
      steps=700 if tiny else 500_000,
      batch=32 if tiny else 256,
      ema=0.995 if tiny else 0.9999,
      cache=True,
    ),
    evaluation=Evaluation(images=297, samples=500, classifier=True, features=False),
  )
  return made if tiny else imagenet(made)
